"""Functions of a project: `functions/<name>/function.toml`, read and checked; an error names the file and the line."""

import re
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

import msgspec

from sampan.contract.errors import InvalidInputError, NotFoundError
from sampan.contract.function import MAX_NAME, NAME, FunctionConfig
from sampan.contract.toml_lines import decode_toml, line_of
from sampan.packaging.declaration import problems

FUNCTIONS, FILE = "functions", "function.toml"


@dataclass(frozen=True, slots=True)
class Function:
    """A deployable: its name, its folder, and what its `function.toml` says."""

    name: str
    folder: Path
    config: FunctionConfig

    @property
    def pipeline(self) -> Path | None:
        """The function's own pre- and post-processing."""
        return self.folder / self.config.pipeline if self.config.pipeline else None


def find_functions(project: Path) -> list[str]:
    """Names of the project's functions, sorted; empty where it has none."""
    files = project.glob(f"{FUNCTIONS}/*/{FILE}")
    return sorted(file.parent.name for file in files if not file.parent.name.startswith("."))


def read_function(project: Path, name: str) -> Function:
    """One function of the project, checked.

    Raises:
        NotFoundError: no such function; says what there is.
        InvalidInputError: a name that Docker or Lambda refuses, a link out of the project, or a `function.toml` that
            is wrong; then `file:LINE`, and all that is wrong with it.
    """
    check_name(name)
    folder = project / FUNCTIONS / name
    file = folder / FILE
    if not file.is_file():
        raise _missing(project, name)
    if not file.resolve().is_relative_to(project.resolve()):
        raise InvalidInputError(f"{file} is a link out of the project; copy what it points at into {project}")
    return Function(name, folder, _read(file))


def check_name(name: str) -> str:
    """The name of a function itself, where Docker and Lambda accept it.

    Raises:
        InvalidInputError: with a name that would do.
    """
    if re.fullmatch(NAME, name, re.ASCII) and len(name) <= MAX_NAME:
        return name
    better = re.sub(r"[^a-z0-9]+", "-", name.lower())[:MAX_NAME].strip("-") or "my-function"
    raise InvalidInputError(
        f"'{name}' is no name for a function: Docker and Lambda take up to {MAX_NAME} of a-z, 0-9 and single '-' or "
        f"'_' between them; '{better}' would do"
    )


def _missing(project: Path, name: str) -> NotFoundError:
    start = f"there is no {project / FUNCTIONS / name / FILE}"
    make = f"`sampan new {name} --model REF` writes it"
    names = find_functions(project)
    if not names:
        return NotFoundError(f"{start}, and no other function in {project / FUNCTIONS}; {make}")
    close = get_close_matches(name, names, n=1)
    hint = f"did you mean '{close[0]}'" if close else f"there are {', '.join(names)}"
    return NotFoundError(f"{start} ({hint}); {make}")


def _read(file: Path) -> FunctionConfig:
    data = file.read_bytes()
    content = decode_toml(data, str(file))
    text = data.decode("utf-8-sig")
    found = sorted((line_of(text, problem.path, problem.value), problem.words) for problem in problems(content, file))
    if found:
        (line, words), *others = found
        more = "".join(f"; line {number}: {reason}" for number, reason in others)
        raise InvalidInputError(f"{file}:{line}: {words}{more}")
    return msgspec.convert(content, FunctionConfig)
