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
MARK = "model.sha256"  # says what the packaged model depends on
Say = Callable[[str], None]


@dataclass(frozen=True)
class Shape:
    """What a context is made for.

    Attributes:
        folder: its name, beside the function's papers.
        dockerfile: that is copied into it.
        models: where its versions are.
        endpoint: its image is that of an endpoint, not the function's.
        code: it has dependencies and our code; else the base image serves the model.
    """

    folder: str = "context"
    dockerfile: str = "functions/Dockerfile.lambda"
    models: str = MODELS
    endpoint: bool = False
    code: bool = True


FUNCTION = Shape()


@dataclass(frozen=True)
class Context:
    """A written context.

    Attributes:
        folder: where it is.
        digest: `sha256:…` over path, mode and content of every file.
        function: what it was made for.
        ref: the version that it carries, such as `magika:2`.
        manifest: of the version as it is packaged.
        shape: what it was made for.
    """

    folder: Path
    digest: str
    function: Function
    ref: str
    manifest: Manifest
    shape: Shape = FUNCTION

    @property
    def version(self) -> Path:
        """The folder of the packaged version."""
        return self.folder / self.shape.models / self.manifest.name

    @property
    def title(self) -> str:
        """What its image is called."""
        return f"{self.function.name}-endpoint" if self.shape.endpoint else self.function.name


def write_context(
    project: Path,
    function: Function,
    version: Version,
    *,
    key: Path | str | None = None,
    say: Say | None = None,
) -> Context:
    """Write the context of a function that runs its model, to `build/functions/<name>/context` of the project.

    Args:
        version: of its model.
        key: seals the model: a key file, or `kms:` with a key's ARN.
        say: gets sentences for the person.

    Raises:
        InvalidInputError: a link, a missing pipeline, or locks that disagree.
        ModelError: the version cannot be packaged.
        PackagingError: the folder cannot be written.
    """

    def fill(new: Path, old: Path) -> None:
        lock = _take_model(new, old, function, version, key, project, say)
        write_shared(new, project, FUNCTION.dockerfile, lock)
        write_function(new, project, function)

    return assemble(project, function, version, FUNCTION, fill)


def assemble(
    project: Path, function: Function, version: Version, shape: Shape, fill: Callable[[Path, Path], None]
) -> Context:
    """Fill a sibling folder and give it its name; the one of before stays where that fails.

    Args:
        fill: gets the new folder, and where the one of before may be.

    Raises:
        PackagingError: the folder cannot be written.
    """
    place = project / BUILD / function.name
    target, new = place / shape.folder, place / f".{shape.folder}.{os.getpid()}"
    try:
        new.mkdir(parents=True)
        fill(new, target)
        normalise(new)
        digest = tree_digest(new)
        _put(new, target, digest)
    except OSError as error:
        raise PackagingError(f"{error.filename or place} cannot be written: {error.strerror}") from error
    finally:
        shutil.rmtree(new, ignore_errors=True)
    manifest = read_manifest(target / shape.models / version.manifest.name)
    return Context(target, digest, function, version.ref, manifest, shape)


def _take_model(
    new: Path,
    old: Path,
    function: Function,
    version: Version,
    key: Path | str | None,
    project: Path,
    say: Say | None,
) -> str:
    """Put the packaged model into the context, from the one before where it is the same; gives the lock it needs."""
    lock = runtime_lock(project, needed_extras(function.config, version.manifest))
    golden, name = function.config.golden_check, version.manifest.name
    made = Making(golden=golden, key=key, runtime=locked_version(lock, "onnxruntime"))
    packaged = take_version(version, made, new / MODELS / name, old / MODELS / name, old.parent / MARK, say)
    return runtime_lock(project, needed_extras(function.config, packaged))


@dataclass(frozen=True, kw_only=True)
class Making:
    """How a version is prepared (`prepare_model`)."""

    golden: int = 0
    key: Path | str | None = None
    runtime: str | None = None
    optimise: bool = True


def take_version(version: Version, made: Making, new: Path, old: Path, marked: Path, say: Say | None) -> Manifest:
    """Prepare a version, or take it over from the context before where it is the same.

    Args:
        new: its folder in the context that is being written; old: in the one before.
        marked: file that says what the one before was made of.
    """

    def make() -> None:
        model.prepare_model(
            version,
            new,
            golden=made.golden,
            key=made.key,
            runtime=made.runtime,
            optimise=made.optimise,
            say=say,
        )

    return take_over(new, old, marked, mark(version, made.golden, _secret(made.key), made.runtime, made.optimise), make)


def take_over(new: Path, old: Path, marked: Path, wanted: str, make: Callable[[], object]) -> Manifest:
    """What was made before, where its mark is the wanted one and it is sound; else made anew."""
    if _is(marked, wanted) and _sound(old):
        _link_tree(old, new)
    else:
        marked.unlink(missing_ok=True)
        make()
        replace_file(marked, wanted.encode())
    return read_manifest(new)


def mark(version: Version, *facts: object) -> str:
    """What a packaged model depends on, as one digest: the version, some facts, and how we make it."""
    manifest = msgspec.json.encode(version.manifest).decode()
    source = Path(model.__file__).read_text("utf-8")
    known = [VERSION, manifest, *facts, metadata.version("onnxruntime"), source]
    return hashlib.sha256(msgspec.json.encode(known)).hexdigest()


def _secret(key: Path | str | None) -> str:
    """What stands for a key among the facts."""
    file = Path(key) if key is not None else None
    return hashlib.sha256(file.read_bytes()).hexdigest() if file and file.is_file() else str(key)


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


def write_shared(new: Path, project: Path, dockerfile: str, lock: str) -> None:
    """What every context has: Dockerfile, installer, lock, our code."""
    copy_plain(find_shared(project, dockerfile), new / DOCKERFILE)
    copy_plain(Path(install.__file__), new / INSTALL)
    (new / REQUIREMENTS).write_text(lock, "utf-8")
    for package in (sampan.contract, sampan.serving):
        _copy_package(Path(str(package.__file__)).parent, new / CODE)


def write_function(new: Path, project: Path, function: Function) -> None:
    """What a function has beside its model: Lambda's runtime client, its own pipeline."""
    (new / CLIENT).write_text(client_lock(project), "utf-8")
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
