"""Gates by a function of the user's: `module:function(reference, candidate) -> float`.

The function is called once a sample, with the outputs of the source and of the candidate as dicts of name →
array; a gate on one output, `module:function[output]`, gives the two arrays. The mean over the samples counts.
The module is imported as Python finds it; the command line adds the project's folder.
"""

import sys
import traceback
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from sampan.contract.errors import InvalidInputError
from sampan.contract.metrics import Gate, Measured, mean
from sampan.contract.tensors import Tensors

Function = Callable[[Any, Any], float]


def importable(project: Path) -> None:
    """Let modules of the project's folder be imported, after everything that is installed."""
    folder = str(project.resolve())
    if folder not in sys.path:
        sys.path.append(folder)


def find(gate: Gate) -> Function:
    """The function that a gate names.

    Raises:
        InvalidInputError: no such module or function, or the module fails when it is imported; says where.
    """
    module_name, name = gate.metric.split(":")
    try:
        module = import_module(module_name)
    except Exception as error:  # whatever the user's module raises
        raise InvalidInputError(f"gate '{gate}' cannot import {module_name}: {_told(error)}") from error
    function = getattr(module, name, None)
    if not callable(function):
        where = getattr(module, "__file__", None) or module_name
        raise InvalidInputError(f"gate '{gate}' finds no function '{name}' in {where}")
    return function  # type: ignore[no-any-return]


def measure(gate: Gate, reference: Sequence[Tensors], candidate: Sequence[Tensors]) -> Measured:
    """The mean of the user's function over samples, with its standard error.

    Raises:
        InvalidInputError: the function is not there, raises, or gives no number; says where.
    """
    function = find(gate)
    values = [_value(gate, function, ours, theirs) for ours, theirs in zip(reference, candidate, strict=True)]
    return mean(gate.metric, np.array(values, np.float64))


def _value(gate: Gate, function: Function, ours: Tensors, theirs: Tensors) -> float:
    pair = (ours[gate.output], theirs[gate.output]) if gate.output else (dict(ours), dict(theirs))
    try:
        return float(function(*pair))
    except Exception as error:  # whatever the user's function raises, or a result that is no number
        raise InvalidInputError(f"gate '{gate}' failed: {_told(error)}") from error


def _told(error: Exception) -> str:
    """The error and the line of the user's that it comes from, where there is one."""
    words = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    if isinstance(error, SyntaxError):
        return f"{error.filename}:{error.lineno}: {type(error).__name__}: {error.msg}"
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename != __file__ and "importlib" not in frame.filename
    ]
    return f"{frames[-1].filename}:{frames[-1].lineno}: {words}" if frames else words
