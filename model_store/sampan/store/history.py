"""A model's history: the versions that came and the moves of its aliases, told from the store's own records."""

from dataclasses import dataclass

from sampan.contract.manifest import Manifest
from sampan.store import missing
from sampan.store.protocol import Move, Store
from sampan.store.reference import Reference


@dataclass(frozen=True, slots=True)
class Registered:
    """A version came."""

    when: str
    manifest: Manifest


@dataclass(frozen=True, slots=True)
class AliasMoved:
    """An alias moved."""

    when: str
    alias: str
    move: Move


Event = Registered | AliasMoved


def history(store: Store, name: str) -> list[Event]:
    """Versions and moves of a model, in the order of time.

    Raises:
        NotFoundError: no such model.
        StoreError: a manifest or an alias is damaged.
    """
    numbers = store.versions(name)
    if not numbers:
        raise missing.model(name, store.names(), store.location)
    manifests = [store.find(Reference(name, number)).manifest for number in numbers]
    events: list[Event] = [Registered(manifest.created, manifest) for manifest in manifests]
    for alias, found in store.aliases(name).items():
        events += [AliasMoved(move.when, alias, move) for move in found.moves]
    return sorted(events, key=lambda event: event.when)
