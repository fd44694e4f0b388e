"""`memory` written into a `function.toml`; every other byte stays."""

import re
from collections.abc import Iterator
from pathlib import Path

from sampan.contract.errors import InvalidInputError
from sampan.contract.toml_lines import decode_toml
from sampan.packaging.files import replace_file

_VALUE = re.compile(rb"""(?m)^([ \t]*(?:memory|"memory"|'memory')[ \t]*=[ \t]*)[0-9A-Za-z_+-]+""")
_LINE = re.compile(rb"(?m)^[^\r\n]*(\r?\n|\Z)")


def write_memory(file: Path, memory: int) -> None:
    """Set `memory` in MB, where it stands or below another key of the top table; in one step.

    Raises:
        InvalidInputError: the file is no TOML, or there is no place for it.
        PackagingError: it cannot be written.
    """
    data = file.read_bytes()
    wanted = {**decode_toml(data, str(file)), "memory": memory}
    for changed in _candidates(data, b"%d" % memory):
        try:
            found = decode_toml(changed, str(file))
        except InvalidInputError:
            continue
        if found == wanted:
            replace_file(file.resolve(), changed)
            return
    raise InvalidInputError(f"there is no place for 'memory' in {file}; write memory = {memory} into it")


def _candidates(data: bytes, memory: bytes) -> Iterator[bytes]:
    """The file with each value of a key `memory` changed, then with a new line after each line, the model's first."""
    for found in _VALUE.finditer(data):
        yield data[: found.start()] + found[1] + memory + data[found.end() :]
    newline = b"\r\n" if b"\r\n" in data else b"\n"
    for line in sorted(_LINE.finditer(data), key=lambda line: not line[0].startswith(b"model")):
        before = b"" if line[1] else newline
        yield data[: line.end()] + before + b"memory = " + memory + newline + data[line.end() :]
