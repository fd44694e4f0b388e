"""A context's Dockerfile, checked without an engine: what a builder would refuse, and what must not be in an image.

    parse → stages and arguments → each instruction → one error with every line that is wrong

Source: https://docs.docker.com/reference/dockerfile/
"""

import json
import re
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sampan.contract.errors import InvalidInputError
from sampan.packaging.context import DOCKERFILE

_VARIABLE = re.compile(r"\$\{?([A-Za-z_]\w*)")
_SECRET = re.compile(
    r"(?:secret|passwo?rd|token|api_?key|access_?key|private_?key|credential)\w*\s*=\s*[\"']?[^\s\"'$]"
    r"|AKIA[0-9A-Z]{16}|-----BEGIN",
    re.IGNORECASE,
)
_URL = re.compile(r"^(?:https?|git|ftp)://|^git@|\.git(?:#|$)", re.IGNORECASE)
_EXEC = ("CMD", "ENTRYPOINT")


@dataclass(slots=True)
class _State:
    """What was declared up to an instruction."""

    folder: Path
    arguments: set[str] = field(default_factory=set)  # before the first FROM
    stages: list[str] = field(default_factory=list)
    commands: set[str] = field(default_factory=set)  # CMD and ENTRYPOINT of this stage


def check_dockerfile(folder: Path) -> None:
    """Check the Dockerfile of a context.

    Raises:
        InvalidInputError: with the line of everything that is wrong, or the package that is missing.
    """
    path = folder / DOCKERFILE
    state = _State(folder)
    problems = [
        f"line {entry['startline'] + 1}: {words}" for entry in _parsed(path) for words in _problems(entry, state)
    ]
    if not state.stages:
        problems.append("it has no FROM")
    elif "CMD" not in state.commands:
        problems.append("its last stage has no CMD, which names the handler")
    if problems:
        raise InvalidInputError(f"{path}: {'; '.join(problems)}")


def _parsed(path: Path) -> list[dict[str, Any]]:
    try:
        from dockerfile_parse import DockerfileParser
    except ImportError as error:
        raise InvalidInputError(
            "checking a Dockerfile without an engine needs the extra 'package': pip install 'sampan[package]'"
        ) from error
    try:
        with path.open("rb") as file:  # which the parser only reads
            entries: list[dict[str, Any]] = DockerfileParser(fileobj=file).structure
    except OSError as error:
        raise InvalidInputError(f"{path} cannot be read: {error.strerror}") from error
    return [entry for entry in entries if entry["instruction"] != "COMMENT"]


def _problems(entry: dict[str, Any], state: _State) -> Iterator[str]:
    instruction, value = entry["instruction"], entry["value"]
    if _SECRET.search(value):
        yield f"{instruction} holds what looks like a secret; give it to the function at run time"
    check = _CHECKS.get(instruction)
    if check is not None:
        yield from check(value, state, instruction)
    elif instruction not in _KNOWN:
        yield f"there is no instruction {instruction}"


def _from(value: str, state: _State, _: str) -> Iterator[str]:
    words = [word for word in value.split() if not word.startswith("--")]
    for name in _VARIABLE.findall(value):
        if name not in state.arguments:
            yield f"FROM uses ${name}, which no ARG before it declares"
    state.commands.clear()
    state.stages.append(words[2].lower() if len(words) == 3 and words[1].upper() == "AS" else str(len(state.stages)))


def _argument(value: str, state: _State, _: str) -> Iterator[str]:
    if not state.stages:
        state.arguments.add(value.split("=")[0].strip())
    yield from ()


def _copy(value: str, state: _State, instruction: str) -> Iterator[str]:
    words = _words(value)
    flags = dict(word[2:].split("=", 1) for word in words if word.startswith("--") and "=" in word)
    sources = [word for word in words if not word.startswith("--")][:-1]
    if not sources:
        yield f"{instruction} needs a source and a target"
    if "from" in flags:
        stage = flags["from"].lower()
        earlier = state.stages[:-1]
        if stage not in earlier and not (stage.isdecimal() and int(stage) < len(earlier)):
            yield f"{instruction} --from={flags['from']}: there is no such stage before; there are {', '.join(earlier)}"
        return
    for source in sources:
        yield from _source(source, state.folder, instruction)


def _source(source: str, folder: Path, instruction: str) -> Iterator[str]:
    if _URL.search(source):
        yield f"{instruction} of {source}: nothing is downloaded in a build but locked dependencies"
    elif ".." in Path(source).parts:
        yield f"{instruction} of {source}: it is outside the context"
    elif not _VARIABLE.search(source) and not any(folder.glob(source.strip("/") or "*")):
        yield f"{instruction} of {source}: the context has no such file"


def _execution(value: str, state: _State, instruction: str) -> Iterator[str]:
    if instruction in state.commands:
        yield f"a second {instruction} in one stage; only the last would count"
    state.commands.add(instruction)
    try:
        form = json.loads(value)
    except json.JSONDecodeError:
        form = None
    if not isinstance(form, list) or not form or not all(isinstance(word, str) for word in form):
        yield f'{instruction} must have the exec form, such as ["program", "argument"]; a shell keeps signals'


def _words(value: str) -> list[str]:
    """Words of COPY and ADD, which may have JSON's form."""
    try:
        return list(json.loads(value)) if value.startswith("[") else shlex.split(value)
    except ValueError:
        return value.split()


_CHECKS: dict[str, Callable[[str, _State, str], Iterator[str]]] = {
    "FROM": _from,
    "ARG": _argument,
    "COPY": _copy,
    "ADD": _copy,
    "CMD": _execution,
    "ENTRYPOINT": _execution,
}
_KNOWN = frozenset(
    ("RUN", "LABEL", "EXPOSE", "ENV", "VOLUME", "USER", "WORKDIR", "ONBUILD", "STOPSIGNAL", "HEALTHCHECK", "SHELL")
)
