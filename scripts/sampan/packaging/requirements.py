"""What a function installs: exact locks with hashes, of the runtime and of the extras that its model needs.

A project may have locks of its own in `layers/handler/`; others get those that Sampan was tested with.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from sampan.contract.errors import InvalidInputError
from sampan.contract.function import FunctionConfig
from sampan.contract.manifest import Manifest

LOCKS = "layers/handler"
RUNTIME, CLIENT = "requirements.txt", "extras/client.txt"
REMOTE, ENDPOINT, GPU = "remote", "endpoint", "gpu"  # extras of a heavy model's function, and of its endpoint
_INSTEAD = {
    "onnxruntime-gpu": "onnxruntime"
}  # both are the package onnxruntime; the one that was installed last counts
_SOURCES = Path(__file__).parents[3]  # of an editable install
_START = re.compile(r"^([A-Za-z0-9][\w.-]*)==([^\s;\\]+)\s*(;[^\\]*)?")


def needed_extras(config: FunctionConfig, manifest: Manifest) -> tuple[str, ...]:
    """Extras that the model, its pipeline and the function need, sorted."""
    trace = ("trace",) if config.trace else ()
    return tuple(sorted({*manifest.needs.extras, *config.extras, *trace}))


def endpoint_extras(config: FunctionConfig, manifest: Manifest) -> tuple[str, ...]:
    """Extras of the container of the function's endpoint, sorted."""
    device = (GPU,) if config.endpoint.gpu else ()
    return tuple(sorted({*manifest.needs.extras, *config.extras, ENDPOINT, *device}))


def runtime_lock(project: Path, extras: Iterable[str], without: Iterable[str] = ()) -> str:
    """One lock of the runtime and some extras, without some packages.

    Raises:
        InvalidInputError: an extra without a lock, or locks that disagree.
    """
    names = [RUNTIME, *(f"extras/{extra}.txt" for extra in extras)]
    locks = {name: find_shared(project, f"{LOCKS}/{name}").read_text("utf-8") for name in names}
    return merge_locks(locks, frozenset(without))


def client_lock(project: Path) -> str:
    """The lock of Lambda's runtime client."""
    return find_shared(project, f"{LOCKS}/{CLIENT}").read_text("utf-8")


def find_shared(project: Path, path: str) -> Path:
    """A file that every function shares: the project's own, else the one that came with Sampan.

    Args:
        path: as it stands in a project, such as `functions/Dockerfile.lambda`.

    Raises:
        InvalidInputError: there is none.
    """
    packaged = Path(__file__).parent / path.removeprefix(f"{LOCKS}/").removeprefix("functions/")
    found = next((file for file in (project / path, packaged, _SOURCES / path) if file.is_file()), None)
    if found is None:
        raise InvalidInputError(f"there is no {path}, neither in {project} nor with Sampan; install Sampan again")
    if found.is_symlink():
        raise InvalidInputError(f"{found} cannot be packaged: it is a link; put the file itself there")
    return found


def merge_locks(locks: Mapping[str, str], without: frozenset[str] = frozenset()) -> str:
    """Locks by name as one, sorted by package; the GPU's onnxruntime stands in the place of the CPU's.

    Raises:
        InvalidInputError: two of them want different versions of a package; names all three.
    """
    merged: dict[str, list[str]] = {}
    origin: dict[str, str] = {}
    for name, text in locks.items():
        for package, entries in _entries(text, name).items():
            first = merged.setdefault(package, entries)
            origin.setdefault(package, name)
            if list(map(_wanted, first)) != list(map(_wanted, entries)):
                raise InvalidInputError(
                    f"{origin[package]} and {name} of {LOCKS} want different versions of {package} "
                    f"({_wanted(first[0])} and {_wanted(entries[0])}); write both anew with scripts/lock"
                )
    left_out = without.union(_INSTEAD[package] for package in merged if package in _INSTEAD)
    return "".join(entry for package in sorted(merged.keys() - left_out) for entry in merged[package])


def locked_version(lock: str, package: str) -> str | None:
    """Version of a package in a lock; None where it is not there, or depends on the target."""
    versions = {match[2] for line in lock.splitlines() if (match := _START.match(line)) and match[1] == package}
    return versions.pop() if len(versions) == 1 else None


def _entries(text: str, name: str) -> dict[str, list[str]]:
    """Entries (requirement with its hashes) by package; several of one package differ in their markers."""
    entries: dict[str, list[str]] = {}
    package = ""
    for line in text.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        match = _START.match(line)
        if match:
            package = match[1].lower()
            entries.setdefault(package, []).append(line + "\n")
        elif package and line.startswith(" "):
            entries[package][-1] += line + "\n"
        else:
            raise InvalidInputError(f"{LOCKS}/{name} is no lock: '{line[:80]}' is not NAME==VERSION with hashes")
    return entries


def _wanted(entry: str) -> str:
    return entry.split("\\")[0].strip()
