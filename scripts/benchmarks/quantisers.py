"""The quantisers that Sampan's search is compared with: an environment for each tool, one command for each peer.

A peer is given the model file, the samples and the gates, and leaves `model.onnx` (with external data, where it
makes some) in a folder of its own. It runs in a process of its own with a time limit, on as many threads as it
likes; whatever becomes of it is one row.
"""

import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from targets import Target

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parents[1]
START = 300.0  # seconds more than a search is given: imports, the model that is being judged when time is over


@dataclass(frozen=True, slots=True)
class Peer:
    """`command` may name {scripts}, {model}, {folder}, {samples}, {seconds}, {objective}; the gates come last
    where `gates` says so. Its first word is a program of the environment."""

    name: str
    environment: str
    command: str
    about: str
    gates: bool = False

    @property
    def requirements(self) -> Path:
        return HERE / "peers" / self.environment / "requirements.txt"


@dataclass(frozen=True, slots=True)
class Made:
    """A peer's model file, or `error`: why there is none; and how long that took."""

    model: Path
    seconds: float
    error: str | None = None
    note: str = ""


PEERS = {
    peer.name: peer
    for peer in (
        Peer(
            "ort-dynamic",
            "ort",
            "python {scripts}/ort/quantise.py dynamic {model} {folder}/model.onnx {samples}",
            "onnxruntime's `quantize_dynamic` with its defaults",
        ),
        Peer(
            "ort-static",
            "ort",
            "python {scripts}/ort/quantise.py static {model} {folder}/model.onnx {samples}",
            "onnxruntime's `quant_pre_process` and `quantize_static` with their defaults (QDQ, MinMax), calibrated "
            "on all samples",
        ),
        Peer(
            "olive",
            "olive",
            "olive auto-opt --model_name_or_path {model} --output_path {folder} --device cpu "
            "--provider CPUExecutionProvider --precision int8 --log_level 3",
            "Olive's automatic optimiser from the command line; for an ONNX file it takes no data",
        ),
        Peer(
            "olive-search",
            "olive",
            "python {scripts}/olive/search.py {model} {folder}/model.onnx {samples} {seconds} {objective}",
            "Olive's search (TPE) over all that `OnnxQuantization` offers, given the same samples, the same gates "
            "as goals and Sampan's time limit; of its models the best that meets the gates, or the best of all",
            gates=True,
        ),
    )
}


def prepare(peer: Peer, cache: Path) -> Path:
    """The peer's environment, installed and compiled to bytecode.

    Raises:
        RuntimeError: it cannot be installed; with the installer's last words.
    """
    venv = cache / peer.environment
    wanted, stamp = peer.requirements.read_text(), venv / "installed.txt"
    if stamp.exists() and stamp.read_text() == wanted:
        return venv
    print(f"{peer.environment}: installing", file=sys.stderr, flush=True)
    shutil.rmtree(venv, ignore_errors=True)
    python = str(venv / "bin" / "python")
    _run([sys.executable, "-m", "venv", str(venv)])
    # pip, which takes a CPU wheel of torch where the machine has one
    _run([python, "-m", "pip", "install", "-qq", "-r", str(peer.requirements)])
    _run([python, "-m", "compileall", "-q", str(venv / "lib")], check=False)
    stamp.write_text(wanted)
    return venv


def quantise(
    peer: Peer, venv: Path, source: Path, target: Target, folder: Path, seconds: float, objective: str
) -> Made:
    """Let a peer make its model of `source`, a folder of `scripts/real-models`."""
    folder.mkdir(parents=True)
    places = {"scripts": HERE / "peers", "model": source / "model.onnx", "samples": source / "samples"}
    text = peer.command.format(**places, folder=folder, seconds=round(seconds), objective=objective)
    program, *rest = [*text.split(), *(target.gates if peer.gates else ())]
    start, model = time.monotonic(), folder / "model.onnx"
    try:
        done = subprocess.run(
            [str(venv / "bin" / program), *rest],
            cwd=folder,
            env=_environment(venv, folder),
            capture_output=True,
            text=True,
            timeout=seconds + START,
            check=False,
        )
        error = None if model.exists() and not done.returncode else _ending(done)
    except subprocess.TimeoutExpired:
        error = f"took longer than {seconds + START:.0f} s and was stopped"
    note = folder / "note.txt"
    return Made(model, time.monotonic() - start, error, note.read_text() if note.exists() else "")


def _environment(venv: Path, folder: Path) -> dict[str, str]:
    """No network, no telemetry; the contract's metrics for those who judge by them."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "SAMPAN"))}
    own = {
        "PATH": f"{venv / 'bin'}:{os.environ.get('PATH', '')}",
        "PYTHONPATH": str(PROJECT / "layers" / "handler" / "python"),
        "TMPDIR": str(folder),
        "HF_HUB_OFFLINE": "1",
        "OLIVE_DISABLE_TELEMETRY": "1",
    }
    return inherited | own


def _ending(done: subprocess.CompletedProcess[str]) -> str:
    if done.returncode < 0:
        return f"crashed (signal {-done.returncode})"
    words = [line.strip() for line in f"{done.stdout}\n{done.stderr}".splitlines() if line.strip()]
    errors = [line for line in words if "Error:" in line]
    return f"made no model: {(errors or words)[-1][:200]}" if words else "made no model"


def _run(command: list[str], *, check: bool = True) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if check and done.returncode:
        raise RuntimeError(f"{' '.join(command[:4])} … failed:\n{(done.stderr or done.stdout)[-1500:]}")
