"""A version proves itself: its files are whole, it loads, and it reproduces its golden samples."""

from collections.abc import Iterator
from itertools import islice

from sampan.contract.errors import InvalidInputError, ModelError, StoreError
from sampan.serving.cpu import here
from sampan.serving.golden import replay
from sampan.serving.session import OnnxSession
from sampan.store.digest import content_digest
from sampan.store.draft import declared
from sampan.store.protocol import MANIFEST_FILE, Version

DAMAGE = (InvalidInputError, ModelError, StoreError)  # what a damaged version raises; others are no verdict on it


def open_session(version: Version, threads: int = 0) -> OnnxSession:
    """A session on a version's model, with the session options it needs.

    Raises:
        ModelError: the model cannot be loaded.
    """
    return OnnxSession(version.model_path, threads=threads, config=version.manifest.needs.session)


def prove(version: Version) -> None:
    """Do nothing for a sound version, to which an alias may move.

    Raises:
        ModelError: names the version and what is wrong first.
    """
    for problem in islice(problems(version), 1):
        raise ModelError(f"{version.ref} does not prove itself, so no alias was moved to it: {problem}")


def problems(version: Version, quick: bool = False) -> Iterator[str]:
    """What is wrong with a version, a phrase each; `quick` looks at the files only."""
    try:
        damaged = version.damage()
        yield from damaged
        if damaged:
            return
        yield from _digest_problems(version)
        if not quick:
            yield from _replay_problems(version)
    except DAMAGE as error:
        yield error.message


def _digest_problems(version: Version) -> Iterator[str]:
    manifest = version.manifest
    given = version.golden() if manifest.golden.source == "given" else ()
    if content_digest(manifest.artefact, declared(manifest), given) != manifest.digest:
        yield f"{MANIFEST_FILE} was changed: its digest is not that of what it lists"


def _replay_problems(version: Version) -> Iterator[str]:
    manifest = version.manifest
    session = open_session(version)
    if session.signature != manifest.signature:
        yield f"{MANIFEST_FILE} was changed: the model has another signature"
        return
    samples = version.golden()
    if len(samples) != manifest.golden.count:
        yield f"{manifest.golden.file} has {len(samples)} samples, {manifest.golden.count} were registered"
        return
    result = replay(session, samples, manifest)
    if not result.passed:
        yield f"{result.agreed} of {result.samples} golden samples agree; {result.difference}; {here(manifest.safe)}"
