"""The passes: one file each, all of one shape, members in this order.

* a docstring that says what it does and the source;
* ``NAME``: as recipes and reports call it;
* ``EXACT``: whether the answers stay the same but for rounding, which the worker then checks;
* ``SESSION``: session options that a model needs from then on;
* ``apply(model_in, model_out, **params)``: writes the new model, gives what it did, for the report; there
  ``stored: 0`` says that it changed nothing.

A pass runs in a process of its own (`worker.py`), so it may import what is large, and may crash.
"""

from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, cast

from sampan.contract.errors import NotFoundError


class Pass(Protocol):
    """What a pass's module has."""

    NAME: str
    EXACT: bool
    SESSION: dict[str, str]

    def apply(self, model_in: Path, model_out: Path, **params: Any) -> dict[str, Any]: ...


def find(name: str) -> Pass:
    """A pass of this folder by its name, or any other by its dotted module path.

    Raises:
        NotFoundError: no such module.
    """
    path = name if "." in name else f"{__name__}.{name.replace('-', '_')}"
    try:
        return cast(Pass, import_module(path))
    except ModuleNotFoundError as error:
        raise NotFoundError(f"there is no pass '{name}': {error}") from error
