"""What a search has measured already, so that an interrupted one goes on where it stopped.

One JSON line a candidate, appended as soon as it is measured; a line that was cut off is ignored. The file's
name says what the figures are true for: source, samples, gates, effort, seed and tools.
"""

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from sampan.compress.recipes import Recipe
from sampan.compress.report import Candidate


class Line(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A candidate under its recipe's key, or the errors of layers under a lever's name."""

    key: str
    candidate: Candidate | None = None
    errors: list[tuple[str, float]] = []


class Journal:
    """Remembers in memory, and in a file where a folder is given."""

    def __init__(self, folder: Path | None, facts: Mapping[str, Any], fresh: bool = False) -> None:
        digest = hashlib.sha256(msgspec.json.encode(facts, order="sorted")).hexdigest()[:16]
        self._path = None if folder is None else folder / f"search-{digest}.jsonl"
        if fresh:
            self.forget()
        self._lines: dict[str, Line] = {line.key: line for line in self._read()}
        self.resumed = sum(line.candidate is not None for line in self._lines.values())

    def candidate(self, recipe: Recipe) -> Candidate | None:
        line = self._lines.get(_key(recipe))
        return line.candidate if line is not None else None

    def note(self, recipe: Recipe, candidate: Candidate) -> None:
        self._write(Line(key=_key(recipe), candidate=candidate))

    def sensitivity(self, lever: str) -> list[tuple[str, float]]:
        line = self._lines.get(lever)
        return line.errors if line is not None else []

    def note_sensitivity(self, lever: str, errors: Sequence[tuple[str, float]]) -> None:
        if lever not in self._lines:
            self._write(Line(key=lever, errors=list(errors)))

    def forget(self) -> None:
        """The search has ended; nothing is left to go on with."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)

    def _write(self, line: Line) -> None:
        self._lines[line.key] = line
        if self._path is not None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("ab") as file:
                file.write(msgspec.json.encode(line) + b"\n")

    def _read(self) -> list[Line]:
        """The lines that can be read; what follows the last whole one was cut off, and goes."""
        if self._path is None or not self._path.exists():
            return []
        text = self._path.read_bytes()
        whole = text[: text.rfind(b"\n") + 1]
        if len(whole) < len(text):
            os.truncate(self._path, len(whole))
        lines = []
        for line in whole.splitlines():
            try:
                lines.append(msgspec.json.decode(line, type=Line))
            except msgspec.MsgspecError:
                continue
        return lines


def _key(recipe: Recipe) -> str:
    return f"{recipe.name} {hashlib.sha256(repr(recipe.steps).encode()).hexdigest()[:16]}"
