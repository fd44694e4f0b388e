"""Learning curves as a picture: for each optimiser the loss (left) and the metric (right), epoch by epoch."""

from pathlib import Path
from typing import Any

COLOURS = {"sgd": "#c05621", "adam": "#2b6cb0"}


def draw(history: dict[str, Any], path: Path) -> None:
    """Write the picture; dashed lines are the training rows, full lines the validation rows.

    Args:
        history: `title`, `loss` and `metric` (what they are called), and `runs`: by optimiser, lists of figures
            under `loss`, `val_loss`, `metric`, `val_metric`.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(9, 3.4), dpi=100, layout="constrained")
    figure.suptitle(history["title"])
    for axes, key in zip(figure.subplots(1, 2), ("loss", "metric"), strict=True):
        for optimiser, run in history["runs"].items():
            epochs = range(1, len(run[key]) + 1)
            axes.plot(epochs, run[key], color=COLOURS[optimiser], linestyle="--", linewidth=1)
            axes.plot(epochs, run[f"val_{key}"], color=COLOURS[optimiser], label=optimiser)
        axes.set(title=history[key], xlabel="epoch", yscale="log" if key == "loss" else "linear")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, title="dashed: training" if key == "loss" else None)
    draft = path.with_name(f".{path.name}")
    figure.savefig(draft, format="png", metadata={"Software": None})
    draft.replace(path)
