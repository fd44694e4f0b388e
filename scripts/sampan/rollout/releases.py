"""Release records: what moved on a stage, when, by whom, from where, to where, why, and whether it came to an end.

    releases/<function>/000001.json   pending → done | abandoned

A record is written before anything moves. A call that is killed leaves it pending, and the next call reads it.
"""

from dataclasses import dataclass
from typing import Literal

import msgspec

from sampan.contract.errors import ConflictError, StoreError
from sampan.rollout.cloud import Objects
from sampan.stacks.names import RELEASES
from sampan.store.protocol import Kind

State = Literal["pending", "done", "abandoned"]


class Release(msgspec.Struct, frozen=True, kw_only=True):
    """One move of a function's live alias.

    Attributes:
        when, finished: UTC, ISO 8601; who: user@host.
        from_model, to_model: REFs; from_version, to_version: Lambda versions. From is None: nothing was live.
        deployment: CodeDeploy's id, where that shifts the traffic.
        note: how it ended, where that needs words.
    """

    number: int
    function: str
    kind: Kind
    state: State
    when: str
    who: str
    why: str = ""
    from_model: str | None = None
    from_version: str | None = None
    to_model: str
    to_version: str
    deployment: str = ""
    finished: str = ""
    note: str = ""

    @property
    def text(self) -> str:
        """For a person: `magika:2 → magika:3`."""
        return f"{self.from_model or 'nothing'} → {self.to_model}"


@dataclass(frozen=True, slots=True)
class Releases:
    """The records of a stage, in the store's bucket."""

    objects: Objects

    def last(self, function: str) -> Release | None:
        """The newest record of a function.

        Raises:
            StoreError: the record is damaged.
        """
        numbered = [name for name in self.objects.listed(_folder(function)) if name.endswith(".json")]
        return self._read(f"{_folder(function)}{numbered[-1]}") if numbered else None

    def begin(self, release: Release) -> Release:
        """Write a record under the next number.

        Raises:
            ConflictError: another writer took that number meanwhile.
        """
        last = self.last(release.function)
        new = msgspec.structs.replace(release, number=last.number + 1 if last else 1)
        if not self.objects.put(_key(new), _encoded(new), None):
            raise ConflictError(
                f"another release of {release.function} began just now; see `sampan status`, then try again"
            )
        return new

    def update(self, release: Release) -> Release:
        """Replace a record.

        Raises:
            ConflictError: another writer replaced it at the same time.
        """
        found = self.objects.read(_key(release))
        if not self.objects.put(_key(release), _encoded(release), found[1] if found else None):
            raise ConflictError(f"another call changed the release record {_key(release)} just now; try again")
        return release

    def _read(self, key: str) -> Release:
        found = self.objects.read(key)
        try:
            return msgspec.json.decode(found[0] if found else b"", type=Release)
        except msgspec.MsgspecError as error:
            raise StoreError(f"the release record {key} is damaged: {error}; delete it and try again") from error


def _folder(function: str) -> str:
    return f"{RELEASES}/{function}/"


def _key(release: Release) -> str:
    return f"{_folder(release.function)}{release.number:06d}.json"


def _encoded(release: Release) -> bytes:
    return msgspec.json.format(msgspec.json.encode(release), indent=2) + b"\n"
