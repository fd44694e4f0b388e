"""A function's own pre- and post-processing: `pipeline.py` beside its `function.toml`, one or both of

    def preprocess(items: list) -> dict[str, numpy.ndarray]: ...
    def postprocess(outputs: dict, inputs: dict) -> list: ...

`items` are what the client sent: any JSON value an item, bytes for `{"b64": "…"}` and for a body that is not JSON.
`preprocess` gives an array for each input of the model, with its datatype; `postprocess` gives one JSON-ready result
an item (numpy numbers and arrays are). Without the one, the declared pipeline or else rows of numbers go in; without
the other, the declared pipeline's results or else every output come out.

An item that cannot be taken: raise `sampan.contract.errors.InvalidInputError`, the client reads its sentence under
status 400. Any other exception is 500 and in the log with its traceback, a `ValueError` too: it may as well be a
mistake of the code.
"""

import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from sampan.contract.errors import InvalidInputError, ModelError, SampanError
from sampan.contract.tensors import Array, Signature, Tensors
from sampan.serving.codecs.rows import decode_rows
from sampan.serving.pipelines.outputs import TensorsOutput
from sampan.serving.pipelines.pipeline import OWN, Pipeline, Postprocessor, Preprocessor

MODULE = "sampan_own_pipeline"  # its name in `sys.modules`
STEPS = ("preprocess", "postprocess")


def with_own(path: Path, signature: Signature, declared: Callable[[], Pipeline]) -> Pipeline:
    """The pipeline that a file makes together with the declared one, which is built only for what the file leaves out.

    Raises:
        ModelError: there is no such file, it cannot be imported, defines neither step, or one that is no function.
    """
    path = path.absolute()
    module = _imported(path)
    before, after = (_step(module, name, path) for name in STEPS)
    if before is None and after is None:
        raise ModelError(f"{path.name} defines neither preprocess nor postprocess; define one of them, or both")
    rest = declared() if before is None or after is None else Pipeline(OWN)
    return Pipeline(
        rest.kind if before is None and rest.preprocess else OWN,
        _before(before, path, signature) if before else rest.preprocess or _rows(signature),
        _after(after, path) if after else rest.postprocess or _every_output(path, signature),
        OWN if after else rest.output_kind,
        path.name,
    )


def _imported(path: Path) -> ModuleType:
    """The file as a module; from its source, as cached bytecode goes by times, which a package's files share."""
    try:
        source = path.read_bytes()
    except OSError as error:
        raise ModelError(f"the pipeline {path} cannot be read: {error.strerror}") from error
    module = ModuleType(MODULE)
    module.__file__ = str(path)
    sys.modules[MODULE] = module
    try:
        exec(compile(source, str(path), "exec"), module.__dict__)
    except (Exception, SystemExit) as error:
        del sys.modules[MODULE]
        raise ModelError(f"{_where(error, path)} raises {type(error).__name__}: {error}") from error
    return module


def _step(module: ModuleType, name: str, path: Path) -> Callable[..., Any] | None:
    step = getattr(module, name, None)
    if step is not None and not callable(step):
        raise ModelError(f"{name} of {path.name} is no function but {type(step).__name__}")
    return step


def _before(step: Callable[..., Any], path: Path, signature: Signature) -> Preprocessor:
    def preprocess(items: list[Any]) -> dict[str, Array]:
        tensors = _called(step, path, items)
        if not isinstance(tensors, dict) or not all(isinstance(array, np.ndarray) for array in tensors.values()):
            raise ModelError(f"preprocess of {path.name} gives {_kind(tensors)}, not an array for each input by name")
        try:
            signature.check(tensors)
        except InvalidInputError as error:
            raise ModelError(
                f"preprocess of {path.name} gives what the model does not take: {error.message}"
            ) from error
        return tensors

    return preprocess


def _after(step: Callable[..., Any], path: Path) -> Postprocessor:
    def postprocess(outputs: Mapping[str, Array], inputs: Tensors) -> list[Any]:
        results = _called(step, path, outputs, inputs)
        if not isinstance(results, list):
            raise ModelError(f"postprocess of {path.name} gives {_kind(results)}, not a list with a result an item")
        return results

    return postprocess


def _rows(signature: Signature) -> Preprocessor:
    return lambda items: decode_rows(items, signature, "'inputs'")


def _every_output(path: Path, signature: Signature) -> Postprocessor:
    try:
        return TensorsOutput().build(signature, None)
    except InvalidInputError as error:
        raise ModelError(f"{path.name} must define postprocess: {error.message}") from error


def _called(step: Callable[..., Any], path: Path, *arguments: Any) -> Any:
    try:
        return step(*arguments)
    except (SampanError, MemoryError):
        raise
    except Exception as error:
        raise ModelError(f"{_where(error, path)} raises {type(error).__name__}; the log has the details") from error


def _where(error: BaseException, path: Path) -> str:
    """`pipeline.py:7`, the last of its lines that took part."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == str(path)]
    if isinstance(error, SyntaxError) and error.filename == str(path):
        lines.append(error.lineno)
    return f"{path.name}:{lines[-1]}" if lines else path.name


def _kind(value: Any) -> str:
    if isinstance(value, dict):
        return f"a dict of {', '.join(dict.fromkeys(type(item).__name__ for item in value.values()))}"
    return type(value).__name__
