"""`sampan distill`: a smaller student of a version, trained on its answers, or exit 1 with what it missed."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sampan.cli.compress import progress
from sampan.cli.output import json_option, print_json, print_table, say, size_text, transfer_bar

if TYPE_CHECKING:
    from sampan.distill.report import Report

PATH = click.Path(path_type=Path)
_EPILOG = """\b
Examples:
  sampan distill digits --data unlabelled.npz --python build/frameworks/torch/bin/python
  sampan distill digits --data unlabelled.npz --student mlp:32 --gate 'top1_agreement>=0.97'"""


@click.command(epilog=_EPILOG)
@click.argument("ref", metavar="TEACHER")
@click.option("--data", type=PATH, required=True, help="Unlabelled inputs: a stacked .npz or a folder of .npz.")
@click.option(
    "--student",
    metavar="WORDS",
    help="mlp:64,32, conv1d:16,32,32, cnn:16,32 (widths may be left out), or module:function or file.py:function "
    "that returns an nn.Module for the signature. Default: by the inputs, a fifth of the teacher.",
)
@click.option(
    "--loss",
    type=click.Choice(["kl", "ce", "mse", "cosine"]),
    help="Default: kl where the teacher tells classes, else mse.",
)
@click.option("--temperature", type=float, default=2.0, show_default=True, help="Softens the answers for kl.")
@click.option("--optimiser", type=click.Choice(["adam", "adamw", "sgd"]), default="adam", show_default=True)
@click.option("--lr", type=float, help="Learning rate. Default: 0.002, for sgd 0.05.")
@click.option("--momentum", type=float, default=0.9, show_default=True, help="Of sgd.")
@click.option("--l1", type=float, default=0.0, show_default=True, help="Weight of the absolute weights in the loss.")
@click.option("--l2", type=float, default=0.0, show_default=True, help="Weight of the squared weights in the loss.")
@click.option(
    "--schedule",
    type=click.Choice(["constant", "cosine", "step", "plateau"]),
    default="cosine",
    show_default=True,
    help="How the learning rate falls: step divides it by 10 every third, plateau halves it.",
)
@click.option("--epochs", type=int, default=100, show_default=True)
@click.option("--batch", type=int, default=64, show_default=True, help="Rows of a step, over all processes.")
@click.option(
    "--patience",
    type=int,
    default=15,
    show_default=True,
    help="Epochs without a better validation loss; 0: all epochs.",
)
@click.option(
    "--held-out", type=float, default=0.1, show_default=True, help="Share of rows for validation, and for the gates."
)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--processes", type=int, default=1, show_default=True, help="Processes that train together (torchrun).")
@click.option(
    "--gate",
    "gates",
    multiple=True,
    metavar="'METRIC<=X'",
    help="What must hold on held-out rows against the teacher's answers (repeatable). Default: top1_agreement>=0.95 "
    "for classifiers, else cosine>=0.95.",
)
@click.option("--log", "kind", type=click.Choice(["tensorboard", "mlflow"]), help="Where each epoch is logged.")
@click.option("--log-dir", default="runs", show_default=True, help="Folder of the log, or MLflow's address.")
@click.option("--curve", type=PATH, metavar="PNG", help="Draw the learning curve into this file.")
@click.option(
    "--python",
    envvar="SAMPAN_PYTHON",
    show_envvar=True,
    metavar="PATH",
    type=PATH,
    default=sys.executable,
    help="Interpreter that has torch, onnx and onnxscript. Default: the one Sampan runs in.",
)
@json_option
@click.pass_obj
def command(
    location: str,
    /,
    ref: str,
    data: Path,
    gates: tuple[str, ...],
    kind: Any,
    log_dir: str,
    curve: Path | None,
    python: Path,
    output: str,
    **settings: Any,
) -> None:
    """Train a smaller student on a version's answers.

    The teacher answers the rows of --data, a student learns the answers in PyTorch and becomes a new version of
    the model with the teacher as its parent. If it misses a gate, nothing is registered and the exit code is 1.
    """
    from sampan.distill.curve import check_drawable, draw
    from sampan.distill.engine import Log, distill
    from sampan.distill.report import StudentMissesError
    from sampan.distill.training import Training
    from sampan.store import open_store

    if curve is not None:
        check_drawable(curve)
    say_gate(location, ref, gates)
    try:
        with progress() as watch:
            outcome = distill(
                open_store(location, transfer_bar()),
                ref,
                data,
                python=python,
                training=Training(**settings),
                gate=gates,
                log=Log(kind, log_dir),
                watch=watch,
            )
        report, found = outcome.report, outcome.version.ref
    except StudentMissesError as error:
        tell(error.report, None, output)
        if curve is not None:
            draw(error.report, curve)
        raise
    if outcome.existed:
        say(f"{found} is already in the store: the same bytes, nothing was added")
    if curve is not None:
        draw(report, curve)
    tell(report, found, output)


def say_gate(location: str, ref: str, gates: tuple[str, ...]) -> None:
    """The default gate is told before the work starts."""
    if gates:
        return
    from sampan.distill.engine import default_gate
    from sampan.store import open_store

    say(f"no --gate given: {default_gate(open_store(location).find(ref).manifest)}")


def tell(report: "Report", ref: str | None, output: str) -> None:
    """Sizes, training and agreement on stderr; the reference or the report on stdout."""
    trained = report.training
    stopped = "stopped early" if trained.early else "all epochs"
    say(
        f"student {trained.student}, {trained.parameters:,} parameters: {size_text(report.student_size)}, "
        f"{report.times_smaller:.1f} times smaller than {report.teacher} ({size_text(report.teacher_size)})"
    )
    rows = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in report.rows.items())
    say(f"trained on rows: {rows}; {trained.epochs} epochs, the best was {trained.best_epoch} ({stopped})")
    golden = f"{report.golden_source} golden samples"
    names = list(report.agreement)
    print_table(["", *names], _agreement(report, golden, names), err=True)
    for entry in report.gates:
        holds = "holds" if entry.passed else "is missed"
        say(f"{entry.gate} {holds}: {entry.value:.4g} on {entry.samples} held-out rows")
    for warning in report.warnings:
        say(f"Warning: {warning}")
    if output == "json":
        import msgspec

        print_json({"ref": ref, **msgspec.to_builtins(report)})
    elif ref is not None:
        click.echo(ref)


def _agreement(report: "Report", golden: str, names: list[str]) -> list[list[str]]:
    parts = [("held-out rows", report.agreement), *([(golden, report.golden)] if report.golden else [])]
    return [[title, *(f"{values[name]:.4g}" for name in names)] for title, values in parts]
