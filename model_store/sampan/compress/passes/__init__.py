"""The passes: one file each, all of one shape, members in this order.

* a docstring that says what it does and the source;
* ``NAME``: as recipes and reports call it;
* ``EXACT``: whether the answers stay the same but for rounding, which the worker then checks;
* ``SESSION``: session options that a model needs from then on;
* ``CALIBRATED = True``, before ``SESSION``, where the pass looks at samples, which `apply` then gets as
  ``calibration``;
* ``apply(model_in, model_out, **params)``: writes the new model, gives what it did, for the report; there
  ``stored: 0`` says that it changed nothing, ``session`` holds further session options.

A pass runs in a process of its own (`worker.py`), so it may import what is large, and may crash.
"""

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, cast

from sampan.compress.tasks import PassCall
from sampan.contract.errors import NotFoundError
from sampan.contract.tensors import Tensors


class Pass(Protocol):
    """What a pass's module has."""

    NAME: str
    EXACT: bool
    SESSION: dict[str, str]

    def apply(self, model_in: Path, model_out: Path, **params: Any) -> dict[str, Any]: ...


def run(
    call: PassCall, model_in: Path, model_out: Path, calibration: Sequence[Tensors]
) -> tuple[dict[str, Any], dict[str, str]]:
    """Run a pass; gives what it did, and the session options that the model needs for it."""
    chosen = find(call.name)
    looks = is_calibrated(call.name)
    did = chosen.apply(model_in, model_out, **({"calibration": calibration} if looks else {}), **call.params)
    needs = did.pop("session", {})
    if looks:
        did["calibrated"] = len(calibration)
    return did, {**needs, **(chosen.SESSION if did.get("stored") != 0 else {})}


def is_calibrated(name: str) -> bool:
    """Whether a pass looks at samples."""
    return getattr(find(name), "CALIBRATED", False)


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
