"""The build context of a function: a folder that is the same bytes for the same input, and has one digest.

    locks + code + packaged model + Dockerfile → sibling folder → digest → renamed into its place

Nothing is followed out of the project or the store. A model that was prepared before is taken over, not made again.
"""

import hashlib
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import msgspec

import sampan.contract
import sampan.serving
from sampan.contract import VERSION
from sampan.contract.errors import InvalidInputError
from sampan.contract.manifest import Manifest
from sampan.packaging import install, model
from sampan.packaging.files import PackagingError, replace_file
from sampan.packaging.plain import copy_plain, normalise, tree_digest
from sampan.packaging.project import Function
from sampan.packaging.requirements import client_lock, find_shared, locked_version, needed_extras, runtime_lock
from sampan.serving.integrity import check_files
from sampan.serving.repository import MANIFEST, read_manifest
from sampan.store.protocol import Version

BUILD = "build/functions"
DOCKERFILE, INSTALL, REQUIREMENTS, CLIENT = "Dockerfile", "install.py", "requirements.txt", "runtime-client.txt"
CODE, TASK, MODELS = "code/opt/python/sampan", "code/var/task", "model/var/task/models"
PIPELINE = "pipeline.py"


@dataclass(frozen=True)
class Context:
    """A written context.

    Attributes:
        folder: where it is.
        digest: `sha256:…` over path, mode and content of every file.
        function: what it was made for.
        ref: the version that it carries, such as `magika:2`.
        manifest: of the version as it is packaged.
    """

    folder: Path
    digest: str
    function: Function
    ref: str
    manifest: Manifest

    @property
    def version(self) -> Path:
        """The folder of the packaged version."""
        return self.folder / MODELS / self.manifest.name


def write_context(
    project: Path,
    function: Function,
    version: Version,
    *,
    key: Path | str | None = None,
    say: Callable[[str], None] | None = None,
) -> Context:
    """Write the context of a function, to `build/functions/<name>/context` of the project.

    Args:
        version: of its model.
        key: seals the model: a key file, or `kms:` with a key's ARN.
        say: gets sentences for the person.

    Raises:
        InvalidInputError: a link, a missing pipeline, or locks that disagree.
        ModelError: the version cannot be packaged.
        PackagingError: the folder cannot be written.
    """
    place = project / BUILD / function.name
    target, new = place / "context", place / f".context.{os.getpid()}"
    try:
        new.mkdir(parents=True)
        lock = _take_model(new, target, function, version, key, project, say)
        _write_rest(new, project, function, lock)
        normalise(new)
        digest = tree_digest(new)
        _put(new, target, digest)
    except OSError as error:
        raise PackagingError(f"{error.filename or place} cannot be written: {error.strerror}") from error
    finally:
        shutil.rmtree(new, ignore_errors=True)
    return Context(target, digest, function, version.ref, read_manifest(target / MODELS / version.manifest.name))


def _take_model(
    new: Path,
    old: Path,
    function: Function,
    version: Version,
    key: Path | str | None,
    project: Path,
    say: Callable[[str], None] | None,
) -> str:
    """Put the packaged model into the context, from the one before where it is the same; gives the lock it needs."""
    lock = runtime_lock(project, needed_extras(function.config, version.manifest))
    runtime = locked_version(lock, "onnxruntime")
    golden, name = function.config.golden_check, version.manifest.name
    mark = _mark(version, golden, key, runtime)
    marked = old.parent / "model.sha256"
    if _is(marked, mark) and _sound(old / MODELS / name):
        _link_tree(old / MODELS / name, new / MODELS / name)
    else:
        marked.unlink(missing_ok=True)
        model.prepare_model(version, new / MODELS / name, golden=golden, key=key, runtime=runtime, say=say)
        replace_file(marked, mark.encode())
    packaged = read_manifest(new / MODELS / name)
    return runtime_lock(project, needed_extras(function.config, packaged))


def _mark(version: Version, golden: int, key: Path | str | None, runtime: str | None) -> str:
    """What the packaged model depends on, as one digest."""
    file = Path(key) if key is not None else None
    secret = hashlib.sha256(file.read_bytes()).hexdigest() if file and file.is_file() else str(key)
    manifest = msgspec.json.encode(version.manifest).decode()
    facts = [VERSION, manifest, golden, secret, runtime, metadata.version("onnxruntime")]
    facts.append(Path(model.__file__).read_text("utf-8"))
    return hashlib.sha256(msgspec.json.encode(facts)).hexdigest()


def _is(marked: Path, mark: str) -> bool:
    return marked.is_file() and marked.read_text("utf-8") == mark


def _sound(folder: Path) -> bool:
    """Whether a packaged model is there, and is what its manifest says."""
    try:
        check_files(folder, read_manifest(folder))
    except Exception:  # whatever is wrong with it, it is made anew
        return False
    return True


def _link_tree(old: Path, new: Path) -> None:
    """The same files at another place; links of the file system where it has them, so that nothing is copied."""
    manifest = read_manifest(old)
    for name in (MANIFEST, *manifest.files):
        (new / name).parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(old / name, new / name)
        except OSError:
            copy_plain(old / name, new / name)


def _write_rest(new: Path, project: Path, function: Function, lock: str) -> None:
    copy_plain(find_shared(project, "functions/Dockerfile.lambda"), new / DOCKERFILE)
    copy_plain(Path(install.__file__), new / INSTALL)
    (new / REQUIREMENTS).write_text(lock, "utf-8")
    (new / CLIENT).write_text(client_lock(project), "utf-8")
    for package in (sampan.contract, sampan.serving):
        _copy_package(Path(str(package.__file__)).parent, new / CODE)
    (new / TASK).mkdir(parents=True)
    if function.pipeline is not None:
        copy_plain(_inside(function.pipeline, function.folder), new / TASK / PIPELINE)


def _copy_package(package: Path, into: Path) -> None:
    for path in package.rglob("*"):
        if path.suffix != ".pyc" and not path.is_dir():
            copy_plain(path, into / package.name / path.relative_to(package))


def _inside(path: Path, folder: Path) -> Path:
    """A file of the function's folder.

    Raises:
        InvalidInputError: missing, or outside the folder, itself or by a link on the way.
    """
    if not path.exists():
        raise InvalidInputError(f"{path} is missing; write it, or take `pipeline` out of {folder / 'function.toml'}")
    if not path.parent.resolve().is_relative_to(folder.resolve()):
        raise InvalidInputError(f"{path} cannot be packaged: it is outside {folder}; put it there")
    return path


def _put(new: Path, target: Path, digest: str) -> None:
    """Rename the context into its place, unless the same is there."""
    if target.is_dir() and tree_digest(target) == digest:
        return
    old = target.with_name(f".old.{os.getpid()}")
    with suppress(FileNotFoundError):
        target.rename(old)
    new.rename(target)
    shutil.rmtree(old, ignore_errors=True)
