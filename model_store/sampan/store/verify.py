"""`verify`: the whole store, or one version, is looked at without trust in anything written down."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from sampan.contract.errors import NotFoundError, StoreError
from sampan.store.proof import problems
from sampan.store.protocol import Store
from sampan.store.reference import Reference


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with what: a version's or an alias's REF and a phrase."""

    ref: str
    problem: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """How many versions were looked at, and every problem found."""

    checked: int
    problems: tuple[Problem, ...]

    @property
    def sound(self) -> bool:
        return not self.problems


def verify(
    store: Store,
    ref: str | None = None,
    *,
    quick: bool = False,
    progress: Callable[[str], None] = lambda ref: None,
) -> Verdict:
    """Check hashes, manifests, aliases, loading and golden samples.

    Args:
        ref: one version; None takes all versions and aliases of the store.
        quick: do not load models.
        progress: is told each version before it is looked at.

    Raises:
        NotFoundError: no such version.
        StoreError: the store cannot be read at all.
    """
    if ref is not None:
        version = store.find(ref)
        progress(version.ref)
        found = [Problem(version.ref, text) for text in problems(version, quick)]
        return Verdict(1, tuple(found))
    references = [Reference(name, number) for name in store.names() for number in store.versions(name)]
    found = [problem for name in store.names() for problem in _alias_problems(store, name)]
    for reference in references:
        progress(str(reference))
        found += _version_problems(store, reference, quick)
    return Verdict(len(references), tuple(found))


def _version_problems(store: Store, reference: Reference, quick: bool) -> Iterator[Problem]:
    try:
        version = store.find(reference)
    except (NotFoundError, StoreError) as error:
        yield Problem(str(reference), error.message)
        return
    for text in problems(version, quick):
        yield Problem(str(reference), text)


def _alias_problems(store: Store, name: str) -> Iterator[Problem]:
    try:
        aliases = store.aliases(name)
    except StoreError as error:
        yield Problem(name, error.message)
        return
    numbers = store.versions(name)
    for alias, found in aliases.items():
        if found.version not in numbers:
            yield Problem(f"{name}@{alias}", f"points at version {found.version}, which does not exist")
        elif not found.moves or found.moves[-1].to != found.version:
            yield Problem(f"{name}@{alias}", f"points at version {found.version}, but its trail does not end there")
