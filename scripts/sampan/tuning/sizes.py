"""Which memory sizes are tried, and which of them this machine can give."""

from collections.abc import Sequence

from sampan.contract.errors import InvalidInputError
from sampan.contract.function import MAX_MEMORY, MIN_MEMORY
from sampan.emulation.quota import quota_of

SIZES = (256, 512, 1024, 1769, 2048, 3008, 3538, 5307, 7076, 8845, MAX_MEMORY)  # MB; vCPUs become whole at 1,769 × n


def parse_sizes(text: str) -> tuple[int, ...]:
    """Sizes in MB, separated by commas; sorted, each once.

    Raises:
        InvalidInputError: no whole number, or one that Lambda does not have.
    """
    sizes = set()
    for word in text.split(","):
        word = word.strip()
        if not (word.isascii() and word.isdigit()):
            raise InvalidInputError(f"'{word}' is no memory size; give whole MB separated by commas, as in 512,1024")
        if not MIN_MEMORY <= int(word) <= MAX_MEMORY:
            raise InvalidInputError(f"Lambda has no {word} MB, but {MIN_MEMORY} to {MAX_MEMORY}")
        sizes.add(int(word))
    return tuple(sorted(sizes))


def beyond_here(memory: int, cores: int | None = None) -> str:
    """Why this machine cannot show a size: its vCPUs are more than the cores; empty where it can.

    Args:
        cores: None: this machine's.
    """
    notes = quota_of(memory, cores).notes
    return notes[0] if notes else ""


def sizes_to_try(own: int, chosen: Sequence[int] = ()) -> tuple[int, ...]:
    """The sizes that were chosen, else the usual ones and the function's own."""
    return tuple(chosen) or tuple(sorted({*SIZES, own}))
