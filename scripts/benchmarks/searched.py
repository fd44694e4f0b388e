"""`sampan add` and `sampan compress` as a user runs them, in a scratch store."""

import json
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from compression import add_options
from targets import Target

PATIENCE = 3  # times the limit, then a search is stopped


@dataclass(frozen=True, slots=True)
class Searched:
    """The version's reference, or `error`: why there is none; seconds of the command, and its `report.json`."""

    ref: str | None
    seconds: float
    error: str | None = None
    report: dict[str, Any] = field(default_factory=dict)


def add(store: Path, folder: Path) -> str:
    """Put a folder of `scripts/real-models` into the store.

    Raises:
        RuntimeError: `sampan add` refuses it.
    """
    facts = json.loads((folder / "model.json").read_text())
    done = _sampan(store, "add", *add_options(folder, facts))
    if done.returncode:
        raise RuntimeError(f"sampan add {facts['name']} failed: {done.stderr.strip()}")
    return done.stdout.strip()


def search(store: Path, ref: str, target: Target, options: list[str], report: Path, limit: float) -> Searched:
    """Compress under the target's gates; what was measured by an earlier search does not count."""
    gates = [word for gate in target.gates for word in ("--gate", gate)]
    written = report / "report.json"
    written.unlink(missing_ok=True)
    start = time.monotonic()
    try:
        done = _sampan(
            store, "compress", ref, "--fresh", *gates, *options, "--report", str(report), "-o", "json",
            timeout=PATIENCE * limit,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return Searched(None, PATIENCE * limit, f"took longer than {PATIENCE * limit:.0f} s and was stopped")
    seconds = time.monotonic() - start
    told = json.loads(written.read_text()) if written.exists() else {}
    if done.returncode:
        return Searched(None, seconds, done.stderr.strip().rpartition("\n")[2], told)
    return Searched(json.loads(done.stdout)["ref"], seconds, None, told)


def _sampan(store: Path, *arguments: str, timeout: float | None = None) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("sampan")), "--store", str(store), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=timeout)
