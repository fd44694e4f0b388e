"""A context as it lies in Lambda's file system, for this host's Python: what runs without an image.

Dependencies are installed once for each lock and Python, into `~/.cache/sampan/dependencies`; everything else is used
where it is in the context.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from sampan.packaging.context import CLIENT, INSTALL, REQUIREMENTS, Context
from sampan.packaging.docker import last_line
from sampan.packaging.files import PackagingError

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
    dependencies = _installed(context, locks, (cache or CACHE).expanduser())
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


def _installed(context: Context, locks: list[Path], cache: Path) -> Path:
    """The folder of the dependencies, installed where it is not there yet."""
    digest = hashlib.sha256(f"host {sys.version} {os.uname().machine}".encode())
    for path in (context.folder / INSTALL, *locks):
        digest.update(path.read_bytes())
    folder = cache / digest.hexdigest()[:32]
    if folder.is_dir():
        return folder
    new = folder.with_name(f".{folder.name}.{os.getpid()}")
    try:
        cache.mkdir(parents=True, exist_ok=True)
        _install(context, locks, new)
        if not folder.is_dir():  # another process may have been first
            new.rename(folder)
    except OSError as error:
        raise PackagingError(f"{error.filename or cache} cannot be written: {error.strerror}") from error
    finally:
        shutil.rmtree(new, ignore_errors=True)
    return folder


def _install(context: Context, locks: list[Path], target: Path) -> None:
    command = [sys.executable, str(context.folder / INSTALL), "dependencies", str(target)]
    for lock in locks:
        command += ["--requirement", str(lock)]
    log = context.folder.parent / "install.log"
    with log.open("wb") as output:
        done = subprocess.run(command, stdout=output, stderr=subprocess.STDOUT, check=False)
    if done.returncode:
        reason = last_line(log.read_text("utf-8", "replace")).removeprefix("install: ")
        raise PackagingError(f"{context.function.name}: {reason}; the log is {log}")
