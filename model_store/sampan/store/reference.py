"""How a version is said: `name` (its live version, else the newest), `name:3`, or `name@alias`."""

import re
from dataclasses import dataclass

from sampan.contract.errors import InvalidInputError

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}", re.ASCII)
NUMBER = re.compile(r"[1-9][0-9]{0,8}", re.ASCII)
NAME_RULE = "1 to 63 of a-z, 0-9, '.', '_' and '-', beginning with a letter or a digit"
GRAMMAR = "name, name:3 or name@alias"
LIVE = "live"


@dataclass(frozen=True, slots=True)
class Reference:
    """A parsed REF; at most one of `version` and `alias` is set."""

    name: str
    version: int | None = None
    alias: str | None = None

    def __str__(self) -> str:
        if self.version is not None:
            return f"{self.name}:{self.version}"
        return f"{self.name}@{self.alias}" if self.alias else self.name


def parse_reference(text: str) -> Reference:
    """Read a REF.

    Raises:
        InvalidInputError: with the grammar, or the rule for names.
    """
    match = re.fullmatch(r"([^:@]+)(?::([1-9][0-9]{0,8})|@([^:@]+))?", text, re.ASCII)
    if match is None:
        raise InvalidInputError(f"'{text}' is not a reference; write {GRAMMAR}")
    name, version, alias = match.groups()
    if alias is not None:
        check_name(alias, "alias")
    return Reference(check_name(name), int(version) if version else None, alias)


def check_name(name: str, what: str = "model name") -> str:
    """The name itself, where it holds the rule.

    Raises:
        InvalidInputError: with the rule.
    """
    if NAME.fullmatch(name) is None:
        raise InvalidInputError(f"'{name}' is no {what}; use {NAME_RULE}")
    return name


def name_of_stem(stem: str) -> str:
    """The model name of a file's stem: lower case, spaces to '-'.

    Raises:
        InvalidInputError: the stem needs more than that; the sentence asks for `--name`.
    """
    name = stem.lower().replace(" ", "-")
    if NAME.fullmatch(name) is None:
        raise InvalidInputError(f"'{stem}' gives no model name ({NAME_RULE}); say one with --name")
    return name
