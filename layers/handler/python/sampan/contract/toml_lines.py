"""TOML whose errors name the line: what `function.toml` and files of gates are read with."""

import re
import tomllib
from collections.abc import Iterator
from typing import Any

from sampan.contract.errors import InvalidInputError

_PART = r"""(?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*')"""
_DOTTED = rf"{_PART}(?:\s*\.\s*{_PART})*"
_HEADER = re.compile(rf"\s*\[\[?\s*({_DOTTED})\s*\]")
_KEY = re.compile(rf"\s*({_DOTTED})\s*=")


def decode_toml(data: bytes, where: str) -> dict[str, Any]:
    """The content of a TOML file.

    Raises:
        InvalidInputError: no UTF-8 or no TOML; `where:LINE` begins the sentence.
    """
    try:
        return tomllib.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InvalidInputError(f"{where}:{line}: this is no UTF-8; save the file as UTF-8") from error
    except (ValueError, RecursionError) as error:  # TOMLDecodeError, and what int() and deep nesting raise
        found = re.search(r" \(at (?:line (\d+), column \d+|end of document)\)$", str(error))
        words = str(error)[: found.start()] if found else str(error)
        line = int(found[1] or data.count(b"\n", 0, len(data.rstrip())) + 1) if found else 1
        raise InvalidInputError(f"{where}:{line}: this is no TOML: {words[:1].lower()}{words[1:]}") from error


def line_of(text: str, path: tuple[str, ...], value: str = "") -> int:
    """Number of the line of a key, or of the text `value` in what the key holds; 1 for what stands nowhere.

    Args:
        path: tables and key, such as ("budgets", "image_mb"); where the key is inside an inline table, that is found.
    """
    best, line = 0, 1
    for number, key in enumerate(_keys(text), 1):
        if key and key == path[: len(key)] and len(key) > best:
            best, line = len(key), number
    rest = text.split("\n")[line - 1 :]
    return next((line + offset for offset, words in enumerate(rest) if value in words), line) if value else line


def _keys(text: str) -> Iterator[tuple[str, ...]]:
    """Of every line the key that begins on it, with its tables; an empty one for other lines."""
    table: tuple[str, ...] = ()
    for words in text.split("\n"):
        if header := _HEADER.match(words):
            table = _parts(header[1])
            yield table
        else:
            key = _KEY.match(words)
            yield (*table, *_parts(key[1])) if key else ()


def _parts(dotted: str) -> tuple[str, ...]:
    return tuple(part.strip("\"'") for part in re.findall(_PART, dotted))
