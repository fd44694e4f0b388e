"""The learning curve as a picture: losses on the left, agreement on the right, the best epoch marked."""

from importlib.util import find_spec
from io import BytesIO
from pathlib import Path

from sampan.contract.errors import InvalidInputError
from sampan.distill.report import Report

INK, BLUE, RUST, GREY = "#222222", "#2b6cb0", "#c05621", "#b8b8b8"


def check_drawable(path: Path) -> None:
    """Say before the work starts what would fail after it.

    Raises:
        InvalidInputError: matplotlib is missing, or the picture cannot be written there.
    """
    if find_spec("matplotlib") is None:
        raise InvalidInputError("--curve needs matplotlib: pip install 'sampan[report]'")
    if path.suffix.lower() != ".png":
        raise InvalidInputError(f"--curve {path} must end in .png")
    if not path.absolute().parent.is_dir():
        raise InvalidInputError(f"--curve {path}: there is no folder {path.parent}")


def draw(report: Report, path: Path) -> None:
    """Write the picture, 1200 × 450 pixels."""
    from matplotlib.figure import Figure

    history = report.training.history
    epochs = [epoch.epoch for epoch in history]
    figure = Figure(figsize=(10, 3.75), dpi=120, layout="constrained")
    figure.suptitle(
        f"{report.teacher} → {report.training.student}, {report.times_smaller:.1f} times smaller", color=INK
    )
    left, right = figure.subplots(1, 2)
    left.plot(epochs, [epoch.loss for epoch in history], color=BLUE, label="training")
    left.plot(epochs, [epoch.validation_loss for epoch in history], color=RUST, label="validation")
    left.set(title="loss", xlabel="epoch", yscale="log")
    right.plot(epochs, [epoch.agreement for epoch in history], color=RUST, label="validation")
    right.set(title="agreement with the teacher", xlabel="epoch")
    for axes in (left, right):
        axes.axvline(report.training.best_epoch, color=GREY, linestyle="--", linewidth=1, label="best epoch")
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
    picture = BytesIO()
    figure.savefig(picture, format="png", metadata={"Software": None})
    draft = path.with_name(f".{path.name}.partial")
    draft.write_bytes(picture.getvalue())
    draft.replace(path)
