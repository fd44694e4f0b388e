"""`sampan add`: model files in, one `name:version` a line out."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sampan.cli.output import json_option, print_json, say, size_text, transfer_bar, version_facts

if TYPE_CHECKING:
    from sampan.store.add import Added

BIG = 500_000_000  # bytes; a copy beyond takes seconds and is announced
INPUT_HELP = "Input of a source that does not say its own, such as 'x:FP32[batch,3,224,224]' (repeatable)."
FILE = click.Path(path_type=Path)


@click.command(
    epilog="Example: sampan add resnet50.onnx --samples samples.npz --labels labels.txt --license Apache-2.0"
)
@click.argument("paths", metavar="PATH…", nargs=-1, required=True, type=FILE)
@click.option("--name", help="Name of the model. Default: the file's stem; for a folder's model.onnx, the folder.")
@click.option("--samples", type=FILE, help="Golden inputs: a stacked .npz, or a folder of .npz, one sample a file.")
@click.option("--labels", type=FILE, help="Class names, one a line.")
@click.option("--license", "licence", metavar="ID", help="SPDX identifier of the licence.")
@click.option("--pipeline", type=FILE, help="TOML that declares pre- and post-processing.")
@click.option("--with", "extras", multiple=True, type=FILE, help="Further file of the artefact (repeatable).")
@click.option("--task", help="What the model does, such as image-classification.")
@click.option("--promote", is_flag=True, help="Point the alias live at the version too.")
@click.option(
    "--python",
    envvar="SAMPAN_PYTHON",
    show_envvar=True,
    metavar="PATH",
    type=FILE,
    default=sys.executable,
    help="Interpreter that has the source's framework. Default: the one Sampan runs in.",
)
@click.option("--weights", type=FILE, help="Weights of a module:Class: safetensors, or a state dict.")
@click.option("--input", "inputs", multiple=True, metavar="SPEC", help=INPUT_HELP)
@click.option("--trust", is_flag=True, help="Let a source run the code inside it, such as a pickle's.")
@json_option
@click.pass_obj
def command(
    location: str, /, paths: tuple[Path, ...], name: str | None, promote: bool, output: str, python: Path,
    weights: Path | None, inputs: tuple[str, ...], trust: bool, **options: Any,
) -> None:  # fmt: skip
    """Put models into the store, checked and proven.

    PATH is an ONNX file, a folder of them, or a model of another framework, which is converted: PyTorch
    (module:Class or file.py:Class with --weights, TorchScript, torch.export .pt2), a Hugging Face folder, Keras,
    a TensorFlow SavedModel, scikit-learn, XGBoost, LightGBM, an MLflow folder or URI. Source and ONNX must
    answer alike.

    Without --samples, golden samples are generated from a fixed seed. A file that is refused does not stop the
    others.
    """
    from sampan.contract.errors import InvalidInputError, SampanError
    from sampan.convert import Options
    from sampan.store import open_store
    from sampan.store.add import add_model
    from sampan.store.moves import promote as move
    from sampan.store.reference import name_of_stem

    store = open_store(location, transfer_bar())
    models, errors = _found(paths)
    if name and len(models) > 1:
        raise InvalidInputError(f"--name '{name}' is for one model, {len(models)} were given; add them one at a time")
    rows: list[dict[str, Any]] = []
    for path, stem in models:
        if path.exists() and path.stat().st_size > BIG:
            say(f"{path}: checking and copying {size_text(path.stat().st_size)}")
        try:
            with _progress() as progress:
                how = Options(python, trust, weights, inputs, progress=progress, warn=_warn)
                added = add_model(store, path, name=name or name_of_stem(stem), options=how, **options)
            if promote:
                move(store, added.version.ref, why="added with --promote")
        except SampanError as error:
            errors.append((path, error.message))
            continue
        rows.append(_tell(added, output == "json"))
    for path, text in errors:
        say(f"Error: {text}" if str(path) in text else f"Error: {path}: {text}")
        rows.append({"path": str(path), "error": text})
    if output == "json":
        print_json(rows)
    if errors:
        raise click.exceptions.Exit(1)


def _warn(words: str) -> None:
    say(f"Warning: {words}; it is loaded, as --trust says so")


@contextmanager
def _progress() -> Iterator[Callable[[str], None]]:
    """What is going on, on stderr where that is a terminal; nothing elsewhere."""
    if not sys.stderr.isatty():
        yield lambda words: None
        return
    from rich.console import Console
    from rich.markup import escape

    with Console(stderr=True).status("adding") as status:
        yield lambda words: status.update(escape(words))


def _found(paths: tuple[Path, ...]) -> tuple[list[tuple[Path, str]], list[tuple[Path, str]]]:
    """Model files with their stems, and the paths that are refused with the reason."""
    from sampan.contract.errors import SampanError
    from sampan.store.add import find_models

    models: list[tuple[Path, str]] = []
    errors: list[tuple[Path, str]] = []
    for path in paths:
        try:
            models += find_models(path)
        except SampanError as error:
            errors.append((path, error.message))
    return models, errors


def _tell(added: "Added", quiet: bool) -> dict[str, Any]:
    manifest = added.version.manifest
    if added.existed:
        say(f"{manifest.ref} is already in the store: the same bytes, nothing was added")
    for note in () if added.existed else added.notes:
        say(f"{manifest.ref}: {note}")
    if not quiet:
        click.echo(manifest.ref)
    return {
        **version_facts(manifest),
        "existed": added.existed,
        "notes": list(added.notes),
    }
