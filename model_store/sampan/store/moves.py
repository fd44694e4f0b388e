"""Aliases are moved: forward to a proven version, back to the one before."""

from dataclasses import dataclass

from sampan.contract.errors import ConflictError
from sampan.store import missing
from sampan.store.proof import prove
from sampan.store.protocol import ANY, Expected, Move, Store, Version
from sampan.store.reference import LIVE, Reference


@dataclass(frozen=True, slots=True)
class Moved:
    """Where the alias points now, and the line in its trail; None when it pointed there before."""

    version: Version
    move: Move | None


def promote(
    store: Store,
    ref: str,
    alias: str = LIVE,
    why: str = "",
    *,
    proof: bool = True,
    expected: Expected = ANY,
) -> Moved:
    """Point an alias at a version, once it has proven itself.

    Args:
        proof: False moves the alias without loading the model.
        expected: the version the alias must point at now (None: nowhere yet), for compare-and-swap.

    Raises:
        ModelError: the version does not prove itself; the alias stays.
        ConflictError: the alias does not point at `expected`.
    """
    version = store.find(ref)
    current = store.aliases(version.manifest.name).get(alias)
    if current and current.version == version.manifest.version and expected in (ANY, current.version):
        return Moved(version, None)
    if proof:
        prove(version)
    move = store.move(
        version.manifest.name, alias, version.manifest.version, why=why, kind="promote", expected=expected
    )
    return Moved(version, move)


def rollback(store: Store, name: str, alias: str = LIVE, why: str = "") -> Moved:
    """Point an alias back at the version it had before, once that has proven itself.

    Raises:
        NotFoundError: no such model or alias.
        ConflictError: there is nothing to go back to, or another writer moved the alias meanwhile.
        ModelError: the old version does not prove itself; the alias stays.
    """
    if not store.versions(name):
        raise missing.model(name, store.names(), store.location)
    aliases = store.aliases(name)
    current = aliases.get(alias)
    if current is None:
        raise missing.alias(name, alias, list(aliases))
    if current.previous is None:
        raise ConflictError(
            f"{name}@{alias} has nothing to roll back to: {name}:{current.version} is the first it pointed at"
        )
    version = store.find(Reference(name, current.previous))
    prove(version)
    move = store.move(name, alias, current.previous, why=why, kind="rollback", expected=current.version)
    return Moved(version, move)
