"""A context as it lies in Lambda's file system, for this host's Python: what runs without an image.

Dependencies are installed once for each lock and Python, into `~/.cache/sampan/dependencies`; everything else is used
where it is in the context.
"""

import hashlib
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sampan.packaging.context import CLIENT, INSTALL, REQUIREMENTS, Context
from sampan.packaging.docker import last_line
from sampan.packaging.files import PackagingError, new_folder

CACHE = Path("~/.cache/sampan/dependencies")


@dataclass(frozen=True)
class Root:
    """Where a runtime finds the function.

    Attributes:
        task: LAMBDA_TASK_ROOT: `models/`, and `pipeline.py` where the function has one.
        path: PYTHONPATH, in order.
    """

    task: Path
    path: tuple[Path, ...]


def make_root(context: Context, *, client: bool = True, cache: Path | None = None) -> Root:
    """Make the function runnable on this host.

    Args:
        context: of the function.
        client: with Lambda's runtime client.
        cache: where installed dependencies stay; None: `~/.cache/sampan/dependencies`.

    Raises:
        PackagingError: the dependencies cannot be had or written; says where the log is.
    """
    locks = [context.folder / REQUIREMENTS, *([context.folder / CLIENT] if client else [])]
    dependencies = installed(context, locks, f"host {sys.version} {os.uname().machine}", cache=cache)
    task = _task(context)
    return Root(task, (task, context.folder.absolute() / "code/opt/python", dependencies))


def _task(context: Context) -> Path:
    """Models and own pipeline in one folder, which the context keeps in two."""
    task = context.folder.absolute().parent / "task"
    parts = [path for part in ("code", "model") for path in (context.folder.absolute() / part / "var/task").glob("*")]
    task.mkdir(exist_ok=True)
    for path in task.iterdir():
        if path.name not in [part.name for part in parts]:
            path.unlink()
    for path in parts:
        if not (task / path.name).is_symlink():
            (task / path.name).symlink_to(path)
    return task


def installed(
    context: Context, locks: Sequence[Path], target: str, options: Sequence[str] = (), cache: Path | None = None
) -> Path:
    """The folder of the installed dependencies; they are installed where they are not there yet.

    Args:
        locks: what is installed.
        target: words for what it is installed for; another target is another folder.
        options: of `install.py`.
        cache: where it stays; None: `~/.cache/sampan/dependencies`.

    Raises:
        PackagingError: the dependencies cannot be had or written; says where the log is.
    """
    digest = hashlib.sha256(target.encode())
    for path in (context.folder / INSTALL, *locks):
        digest.update(path.read_bytes())
    folder = (cache or CACHE).expanduser() / digest.hexdigest()[:32]
    if not folder.is_dir():
        requirements = [part for lock in locks for part in ("--requirement", str(lock))]
        with new_folder(folder) as new:
            run_install(context, ["dependencies", str(new), *requirements, *options])
    return folder


def run_install(context: Context, arguments: Sequence[str], interpreter: str = sys.executable) -> None:
    """Run the context's `install.py`; what it says is in `install.log` beside the context.

    Raises:
        PackagingError: with its reason.
    """
    command = [interpreter, str(context.folder / INSTALL), *arguments]
    log = context.folder.parent / "install.log"
    with log.open("wb") as output:
        done = subprocess.run(command, stdout=output, stderr=subprocess.STDOUT, check=False)
    if done.returncode:
        reason = last_line(log.read_text("utf-8", "replace")).removeprefix("install: ")
        raise PackagingError(f"{context.function.name}: {reason}; the log is {log}")
