"""Gates that stand in a file: `gates = ["top1_agreement>=0.995"]` at the top of a function.toml.

A function names its model by `model = "name"`, `"name:3"` or `"name@alias"`; its gates are those of the model.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sampan.contract.errors import InvalidInputError
from sampan.contract.metrics import parse_gate
from sampan.contract.toml_lines import decode_toml, line_of
from sampan.store import parse_reference

FUNCTIONS = "functions/*/function.toml"


@dataclass(frozen=True, slots=True)
class Declared:
    """Gates, and the file that they stand in."""

    file: Path
    gates: tuple[str, ...]


def read_gates(file: Path) -> Declared:
    """The gates of a TOML file.

    Raises:
        InvalidInputError: no such file, no TOML, no gates in it, or a gate that cannot be read; names the line.
    """
    declared = _gates(file, _toml(file))
    if declared is None:
        raise InvalidInputError(f'{file} has no gates; write gates = ["cosine>=0.99"] at its top')
    return declared


def gates_of(project: Path, name: str) -> Declared | None:
    """The gates of the function that serves a model; None where no function of the project gives any.

    Args:
        project: the folder that has `functions/`.
        name: of the model.

    Raises:
        InvalidInputError: several functions give gates for it, or a file cannot be read.
    """
    found = [declared for file in sorted(project.glob(FUNCTIONS)) if (declared := _for_model(file, name))]
    if len(found) > 1:
        files = " and ".join(str(declared.file) for declared in found)
        raise InvalidInputError(f"{files} give gates for {name}; choose one with --gates FILE, or give --gate")
    return found[0] if found else None


def _for_model(file: Path, name: str) -> Declared | None:
    content = _toml(file)
    model = content.get("model")
    if not isinstance(model, str) or parse_reference(model).name != name:
        return None
    return _gates(file, content)


def _toml(file: Path) -> dict[str, Any]:
    try:
        return decode_toml(file.read_bytes(), str(file))
    except OSError as error:
        raise InvalidInputError(f"{file} cannot be read: {error.strerror}") from error


def _gates(file: Path, content: dict[str, Any]) -> Declared | None:
    gates = content.get("gates", [])
    if not isinstance(gates, list) or not all(isinstance(gate, str) for gate in gates):
        raise InvalidInputError(f'{file}:{_line(file)}: gates must be a list of texts, such as ["cosine>=0.99"]')
    for gate in gates:
        try:
            parse_gate(gate)
        except InvalidInputError as error:
            raise InvalidInputError(f"{file}:{_line(file, gate)}: {error.message}") from error
    return Declared(file, tuple(gates)) if gates else None


def _line(file: Path, gate: str = "") -> int:
    return line_of(file.read_text("utf-8-sig"), ("gates",), gate)
