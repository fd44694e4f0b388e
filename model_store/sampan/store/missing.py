"""What is said when something is not in the store: what there is instead, and the command to run."""

from collections.abc import Sequence
from difflib import get_close_matches

from sampan.contract.errors import NotFoundError

SHOWN = 10


def model(name: str, names: Sequence[str], location: str) -> NotFoundError:
    start = f"no model '{name}' in the store {location}"
    if not names:
        return NotFoundError(f"{start}, which is empty; add one with `sampan add model.onnx --name {name}`")
    close = get_close_matches(name, names, n=3)
    if close:
        return NotFoundError(f"{start}; did you mean {_quoted(close)}? `sampan list` shows all")
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return NotFoundError(f"{start}; it has {_quoted(names[:SHOWN])}{more} (`sampan list`)")


def version(name: str, number: int, numbers: Sequence[int]) -> NotFoundError:
    span = f"{numbers[0]} to {numbers[-1]}" if len(numbers) > SHOWN else ", ".join(map(str, numbers))
    return NotFoundError(f"model '{name}' has no version {number}; it has {span} (`sampan history {name}`)")


def alias(name: str, alias: str, aliases: Sequence[str]) -> NotFoundError:
    there = f"it has {_quoted(aliases)}" if aliases else "it has none"
    return NotFoundError(
        f"model '{name}' has no alias '{alias}'; {there} (`sampan promote {name}:1 --alias {alias}` sets one)"
    )


def _quoted(names: Sequence[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)
