"""Zip placement: the same context as two archives, a function's own and the layer that functions share.

    dependencies + code → layer.zip (python/)          model + own pipeline → function.zip (/var/task)

The same input gives the same bytes. The layer is the same for every function with the same extras, Python and
architecture. Limits: https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html
"""

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

from sampan.contract.function import FunctionConfig
from sampan.packaging.budgets import MEGABYTE, Item
from sampan.packaging.context import REQUIREMENTS, Context
from sampan.packaging.files import PackagingError
from sampan.packaging.rootfs import installed, run_install
from sampan.packaging.sizes import sizes_of

UNPACKED_LIMIT = 262_144_000  # bytes of function and layers together
UPLOAD_LIMIT = 52_428_800  # bytes of one archive that is uploaded to Lambda itself
FUNCTION_ZIP, LAYER_ZIP = "function.zip", "layer.zip"
_DATE = (1980, 1, 1, 0, 0, 0)  # the oldest that a zip can say
_REGULAR = 0o100644
_UNIX = 3
# What Lambda's managed runtimes run on: https://docs.aws.amazon.com/lambda/latest/dg/lambda-runtimes.html
_AMAZON_LINUX_2 = ("3.8", "3.9", "3.10", "3.11")
_GLIBC_2, _GLIBC_2023 = "2_26", "2_34"
_MACHINES = {"x86_64": "x86_64", "arm64": "aarch64"}
_NO_BYTECODE = (
    "no Python {python} is here, so the layer has no bytecode and imports take about twice as long at every cold "
    "start; put python{python} on PATH"
)


class ArchiveError(PackagingError):
    """Raise when a function cannot be put into a zip: too large, or dependencies that cannot be had."""


@dataclass(frozen=True, slots=True)
class Target:
    """What the dependencies are for: `platform` is a tag of wheels, None for this machine's."""

    python: str
    platform: str | None = None


@dataclass(frozen=True, slots=True)
class Archives:
    """Both archives, bytes that they unpack to, what is in them, and what a person should know."""

    function: Path
    layer: Path
    unpacked: int
    items: tuple[Item, ...]
    notes: tuple[str, ...] = ()

    @property
    def compressed(self) -> int:
        """Bytes of both archives."""
        return self.function.stat().st_size + self.layer.stat().st_size


def lambda_target(config: FunctionConfig) -> Target:
    """Lambda's managed runtime for the function's Python and architecture."""
    glibc = _GLIBC_2 if config.python in _AMAZON_LINUX_2 else _GLIBC_2023
    return Target(config.python, f"manylinux_{glibc}_{_MACHINES[config.architecture]}")


def this_machine() -> Target:
    """The interpreter that runs here; for an emulation without containers."""
    return Target("{}.{}".format(*sys.version_info))


def build_archives(
    context: Context, into: Path, *, target: Target | None = None, cache: Path | None = None
) -> Archives:
    """Write `function.zip` and `layer.zip` into a folder.

    Args:
        context: of the function.
        into: folder of the archives; it is made.
        target: what the dependencies are for; None: Lambda's managed runtime.
        cache: where installed dependencies stay; None: `~/.cache/sampan/dependencies`.

    Raises:
        ArchiveError: over 250 MB unpacked, or a dependency cannot be had for the target; nothing is written.
    """
    chosen = target or lambda_target(context.function.config)
    interpreter = find_interpreter(chosen.python)
    notes = [] if interpreter else [_NO_BYTECODE.format(python=chosen.python)]
    try:
        dependencies = _dependencies(context, chosen, cache)
        with tempfile.TemporaryDirectory() as scratch:
            return _build(context, into, dependencies, _own(context, Path(scratch), interpreter), notes)
    except OSError as error:
        raise ArchiveError(f"{error.filename or into} cannot be written: {error.strerror}") from error


def _build(context: Context, into: Path, dependencies: Path, own: Path, notes: list[str]) -> Archives:
    layer = {**_members(dependencies, "python"), **_members(own / "opt", "")}
    function = _members(own / "var" / "task", "")
    items = sizes_of((dependencies, own))
    unpacked = _fitting(context, [*layer.values(), *function.values()], items)
    into.mkdir(parents=True, exist_ok=True)
    archives = (_write(into / FUNCTION_ZIP, function), _write(into / LAYER_ZIP, layer))
    return Archives(*archives, unpacked, items, (*notes, *_upload_notes(archives)))


def find_interpreter(python: str) -> str | None:
    """An interpreter of that version which runs: this one, or one on PATH."""
    if python == this_machine().python:
        return sys.executable
    found = shutil.which(f"python{python}")
    if found is None:
        return None
    ask = [found, "-c", "import sys; print('{}.{}'.format(*sys.version_info))"]
    done = subprocess.run(ask, capture_output=True, text=True, check=False)
    return found if done.stdout.strip() == python else None


def _own(context: Context, scratch: Path, interpreter: str | None) -> Path:
    """Our code, the function's and the model, with bytecode beside the sources."""
    for part in ("code", "model"):
        shutil.copytree(context.folder / part, scratch, symlinks=True, dirs_exist_ok=True)
    if interpreter:
        run_install(context, ["code", str(scratch)], interpreter)
    return scratch


def _dependencies(context: Context, target: Target, cache: Path | None) -> Path:
    """The installed dependencies, from the cache or into it."""
    platform = ["--platform", target.platform] if target.platform else []
    version = [] if target == this_machine() else ["--python-version", target.python]
    words = f"zip {target.python} {target.platform} {find_interpreter(target.python)}"
    try:
        return installed(context, [context.folder / REQUIREMENTS], words, [*platform, *version], cache)
    except PackagingError as error:
        raise ArchiveError(error.message + _hint(target)) from error


def _hint(target: Target) -> str:
    old = target.platform is not None and target.python in _AMAZON_LINUX_2
    return f'; Lambda runs Python {target.python} on Amazon Linux 2, set python = "3.12" or newer' if old else ""


def _members(folder: Path, under: str) -> dict[str, Path]:
    """Names in the archive and files, of everything below a folder."""
    files = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return {f"{under}/{path.relative_to(folder).as_posix()}".lstrip("/"): path for path in files}


def _fitting(context: Context, files: list[Path], items: tuple[Item, ...]) -> int:
    """Bytes of all files.

    Raises:
        ArchiveError: Lambda would not unpack as much.
    """
    size = sum(path.stat().st_size for path in files)
    if size <= UNPACKED_LIMIT:
        return size
    name, largest = context.function.name, items[0]
    raise ArchiveError(
        f"{name} and its layer unpack to {size / MEGABYTE:.1f} MB, over a zip's {UNPACKED_LIMIT / MEGABYTE:.1f} "
        f'({largest.name} has {largest.mb:.1f}); set placement = "lambda" for an image, which may have 10 GB, or make '
        f"the model smaller with: sampan compress {context.manifest.name}"
    )


def _write(path: Path, members: dict[str, Path]) -> Path:
    """One archive: names sorted, one date, one mode, one compression."""
    sibling = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with ZipFile(sibling, "w") as archive:
            for name in sorted(members):
                info = ZipInfo(name, _DATE)
                info.compress_type, info.create_system = ZIP_DEFLATED, _UNIX
                info.external_attr = _REGULAR << 16
                info.file_size = members[name].stat().st_size
                with archive.open(info, "w") as file, members[name].open("rb") as source:
                    shutil.copyfileobj(source, file, 1 << 20)
        return sibling.replace(path)
    finally:
        sibling.unlink(missing_ok=True)


def _upload_notes(archives: tuple[Path, ...]) -> list[str]:
    large = [path for path in archives if path.stat().st_size > UPLOAD_LIMIT]
    return [
        f"{path.name} has {path.stat().st_size / MEGABYTE:.1f} MB, more than {UPLOAD_LIMIT / MEGABYTE:.1f} of a direct "
        "upload, so it goes through S3"
        for path in large
    ]
