"""Run one conversion: `python run.py TASK`, where TASK is JSON with the fields of `Task`.

    read → export → "exported" → (standard input: the inputs are written) → answer → "done"

Speaks one JSON object a line on standard output; whatever libraries print goes to standard error. Needs Python
3.10, numpy, and what the framework's own file asks for.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
CHANNEL = 3  # a copy of standard output, which libraries then cannot write to
Run = Callable[[dict[str, Any]], Sequence[Any]]


class Refusal(Exception):
    """A sentence for the person."""


class Missing(Exception):
    """Packages that are not installed."""


@dataclass
class Export:
    """What became of a source.

    `run` takes inputs by name and gives the outputs in the order of the graph; None: the source is ONNX already.
    `packages` are distributions whose versions are recorded, `files` go beside the model, `samples` are inputs
    to prove and record it with, `pipeline`, `labels` and `task` as `sampan add` takes them.
    """

    exporter: str
    run: Run | None
    packages: Sequence[str] = ()
    files: list[str] = field(default_factory=list)
    samples: list[dict[str, Any]] = field(default_factory=list)
    pipeline: dict[str, Any] | None = None
    labels: list[str] | None = None
    task: str | None = None


@dataclass
class Task:
    """The source, and what is known of it.

    `source` is a path, a module or an MLflow URI; `folder` is where files are written; `inputs` are name, numpy
    dtype and sizes (a name or -1 = variable) each; `samples` is a `.npz` or a folder of them; `paths` are
    searched for modules.
    """

    source: str
    format: str
    folder: str
    worker: str
    attribute: str | None = None
    weights: str | None = None
    samples: str | None = None
    inputs: list[dict[str, Any]] = field(default_factory=list)
    trust: bool = False
    paths: list[str] = field(default_factory=list)

    @property
    def model(self) -> Path:
        """Where the ONNX model is to be written."""
        return Path(self.folder) / "model.onnx"

    def say(self, words: str) -> None:
        send({"progress": words})

    def refusal(self, sentence: str) -> Refusal:
        """To be raised."""
        return Refusal(sentence)

    def danger(self, sentence: str) -> None:
        """Code in the source is about to run: refuse without --trust, else warn."""
        if not self.trust:
            raise Refusal(f"{sentence}; give --trust if you know where it comes from")
        send({"warning": sentence})

    def need(self, **modules: str) -> Any:
        """Import modules; each keyword is a module (`__` for a dot), its value the distribution that has it."""
        found, absent = [], []
        for module, distribution in modules.items():
            try:
                found.append(importlib.import_module(module.replace("__", ".")))
            except ModuleNotFoundError as error:
                if error.name != module.split("__")[0]:
                    raise
                absent.append(distribution)
        if absent:
            raise Missing(absent)
        return found[0] if len(found) == 1 else found

    def done(self, exporter: str, run: Run | None, **facts: Any) -> Export:
        """The model is written: an `Export` of these fields."""
        return Export(exporter, run, **facts)

    def examples(self) -> dict[str, Any]:
        """The given samples as they are: a folder's first file, or the stacked arrays whole; empty without any."""
        import numpy as np

        if self.samples is None:
            return {}
        path = Path(self.samples)
        files = sorted(path.glob("*.npz")) if path.is_dir() else [path]
        with np.load(files[0], allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}

    def only_name(self, default: str) -> str:
        """What the only input is called: as in `--input` or the samples, if they name one."""
        names = [entry["name"] for entry in self.inputs] or list(self.examples())
        return names[0] if len(names) == 1 else default

    def load(self, worker: str) -> Any:
        """Another framework's file."""
        spec = importlib.util.spec_from_file_location(f"sampan_{worker}", HERE / f"{worker}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module


def send(message: dict[str, Any]) -> None:
    os.write(CHANNEL, json.dumps(message).encode() + b"\n")


def main(text: str) -> None:
    task = Task(**json.loads(text))
    sys.path[:] = [*(path for path in sys.path if Path(path or ".").resolve() != HERE), *task.paths]
    warnings.simplefilter("ignore")
    try:
        work(task)
    except Refusal as error:
        send({"refused": str(error)})
    except Missing as error:
        send({"missing": error.args[0]})
    except Exception as error:  # a framework's own; its class tells more than its words
        send({"failed": f"{type(error).__name__}: {first_words(error)}"})


def work(task: Task) -> None:
    task.say("importing the framework")
    export = task.load(task.worker).export(task)
    write_samples(Path(task.folder) / "samples", export.samples)
    facts = {key: value for key, value in vars(export).items() if key not in ("run", "samples", "packages")}
    send({**facts, "versions": versions(export.packages), "proves": export.run is not None})
    if export.run is not None and sys.stdin.readline():
        answer(export.run, Path(task.folder))
        send({"done": True})


def answer(run: Run, folder: Path) -> None:
    """Answer each of `inputs/` into `outputs/`, arrays by their position; strings as unicode."""
    import numpy as np

    (folder / "outputs").mkdir()
    for file in sorted((folder / "inputs").glob("*.npz")):
        with np.load(file, allow_pickle=False) as arrays:
            outputs = run({name: arrays[name] for name in arrays.files})
        plain = {str(index): np.asarray(output) for index, output in enumerate(outputs)}
        plain = {key: array.astype("U") if array.dtype.kind == "O" else array for key, array in plain.items()}
        np.savez(folder / "outputs" / file.name, **plain)  # type: ignore[arg-type]


def write_samples(folder: Path, samples: Sequence[dict[str, Any]]) -> None:
    import numpy as np

    if samples:
        folder.mkdir()
    for index, sample in enumerate(samples):
        np.savez(folder / f"{index:04d}.npz", **sample)


def versions(packages: Sequence[str]) -> dict[str, str]:
    """Versions of the distributions that are installed, and of Python."""
    found = {"python": ".".join(map(str, sys.version_info[:3]))}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def first_words(error: Exception) -> str:
    return " ".join(str(error).split())[:400]


if __name__ == "__main__":
    os.dup2(1, CHANNEL, inheritable=False)
    os.dup2(2, 1)
    main(sys.argv[1])
