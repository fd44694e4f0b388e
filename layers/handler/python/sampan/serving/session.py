"""A session: tensors in, tensors out. The only module that names onnxruntime.

Gets checked tensors, gives tensors; knows nothing of requests. Foreign errors become ours here, once.
"""

import ctypes
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnxruntime as ort

from sampan.contract.errors import InvalidInputError, ModelError
from sampan.contract.tensors import BY_ORT, DATATYPES, Array, Signature, Tensors, TensorSpec
from sampan.serving.packed import is_packed, unpack

ort.disable_telemetry_events()
ort.set_default_logger_severity(4)  # what it refuses is raised here; its own lines would say it twice
CPU = "CPUExecutionProvider"
Provider = str | tuple[str, Mapping[str, str]]  # name of an execution provider, or with its options
_log = logging.getLogger(__name__)
OPTIMIZATION_LEVELS = {
    "none": ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
    "basic": ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "extended": ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "all": ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
}


class Session(Protocol):
    """What a pipeline needs of a model, wherever it runs."""

    signature: Signature

    def run(self, inputs: Tensors, outputs: list[str] | None = None) -> dict[str, Array]: ...


class OnnxSession:
    """An onnxruntime session: on the CPU, or on the first of some execution providers that works here.

    Args:
        model: path of the ONNX file; one packed with Zstandard (`.onnx.zst`) is unpacked in memory.
        threads: intra-op threads; 0 takes every core the process may use.
        optimization: graph optimisation at load: none, basic, extended, all.
        config: session options by onnxruntime's own keys (onnxruntime_session_options_config_keys.h).
        content: what stands in the model file, where that is in memory already; the file is not read then.
        providers: execution providers by onnxruntime's names, the best first, the CPU's last. What does not work
            here is left out; `providers` tells what is in use.
        bound: pass tensors through an IO binding, so that outputs are copied once, from where they were computed;
            always so where the first provider is not the CPU's.

    Raises:
        ModelError: the file is missing, broken, or has an operator this onnxruntime lacks.
    """

    def __init__(
        self,
        model: Path,
        *,
        threads: int = 0,
        optimization: str = "all",
        config: Mapping[str, str] | None = None,
        optimized_path: Path | None = None,
        content: bytes | None = None,
        providers: Sequence[Provider] = (CPU,),
        bound: bool = False,
    ) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads or cores()
        options.inter_op_num_threads = 1
        options.graph_optimization_level = OPTIMIZATION_LEVELS[optimization]
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        for key, value in (config or {}).items():
            options.add_session_config_entry(key, value)
        if optimized_path is not None:
            options.optimized_model_filepath = str(optimized_path)
        source = _source(model, content)
        try:
            self._session = _create(source, options, providers)
        except Exception as error:  # onnxruntime's classes share no base but Exception
            raise ModelError(f"onnxruntime cannot load {model.name}: {_reason(error)}") from error
        self.signature = Signature(
            tuple(_spec(node, "input") for node in self._session.get_inputs()),
            tuple(_spec(node, "output") for node in self._session.get_outputs()),
        )
        self._names = [spec.name for spec in self.signature.outputs]
        self._datatypes = {spec.name: spec.datatype for spec in self.signature.inputs}
        everything = (*self.signature.inputs, *self.signature.outputs)
        self._kinds = {spec.datatype for spec in everything} & {"BF16", "BYTES"}
        if len(self._kinds) > 1:
            raise ModelError(f"{model.name} mixes BF16 and strings, which onnxruntime cannot be fed from Python")
        self._device = "cpu" if self.providers[0] == CPU else "cuda"
        self._bound = (bound or self._device != "cpu") and not self._kinds

    @property
    def providers(self) -> tuple[str, ...]:
        """Names of the execution providers in use, the best first."""
        return tuple(self._session.get_providers())

    def dimensions(self) -> dict[str, list[int | str | None]]:
        """Shape of each input with the graph's own names of variable dimensions."""
        return {node.name: list(node.shape) for node in self._session.get_inputs()}

    def run(self, inputs: Tensors, outputs: list[str] | None = None) -> dict[str, Array]:
        """Run the graph.

        Args:
            inputs: one array for each input, as `Signature.check` wants them.
            outputs: names of the outputs to compute; None computes all.

        Raises:
            InvalidInputError: the graph refuses these values, such as shapes that do not fit together.
        """
        names = self._names if outputs is None else outputs
        try:
            return dict(zip(names, self._run(names, inputs), strict=True))
        except InvalidInputError:
            raise
        except Exception as error:
            raise InvalidInputError(f"the model cannot run on these inputs: {_reason(error)}") from error

    def _run(self, names: list[str], inputs: Tensors) -> list[Array]:
        if self._bound:
            return self._run_bound(names, inputs)
        if not self._kinds:
            return self._session.run(names, inputs)  # type: ignore[no-any-return]
        if "BF16" in self._kinds:
            values = {name: _to_ort(array, self._datatypes[name]) for name, array in inputs.items()}
            return [_from_ort(value) for value in self._session.run_with_ort_values(names, values)]
        texts = {name: _strings(array) if array.dtype.kind == "O" else array for name, array in inputs.items()}
        return [_bytes(array) if array.dtype.kind == "O" else array for array in self._session.run(names, texts)]

    def _run_bound(self, names: list[str], inputs: Tensors) -> list[Array]:
        """https://onnxruntime.ai/docs/api/python/api_summary.html#iobinding"""
        binding = self._session.io_binding()
        for name, array in inputs.items():
            binding.bind_cpu_input(name, np.require(array, requirements="C"))
        for name in names:
            binding.bind_output(name, self._device)
        self._session.run_with_iobinding(binding)
        return binding.copy_outputs_to_cpu()  # type: ignore[no-any-return]


def _create(source: str | bytes, options: ort.SessionOptions, providers: Sequence[Provider]) -> ort.InferenceSession:
    """onnxruntime falls back by itself too, but prints that to standard output, where log lines are."""
    here = ort.get_available_providers()
    usable = [provider for provider in providers if _called(provider) in here]
    if all(provider == CPU for provider in usable):
        return ort.InferenceSession(source, options, providers=[CPU])
    with redirect_stdout(sys.stderr):
        ort.preload_dlls()  # CUDA's libraries out of the nvidia-* wheels
    for first, provider in enumerate(usable[:-1]):
        try:
            return ort.InferenceSession(source, options, providers=usable[first:], enable_fallback=0)
        except Exception as error:  # onnxruntime's classes share no base but Exception
            _log.warning("onnxruntime cannot use %s: %s", _called(provider), _reason(error))
    return ort.InferenceSession(source, options, providers=usable[-1:], enable_fallback=0)


def _called(provider: Provider) -> str:
    return provider if isinstance(provider, str) else provider[0]


def _source(model: Path, content: bytes | None) -> str | bytes:
    if is_packed(model):
        return unpack(model, content)
    return str(model) if content is None else content


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _spec(node: Any, side: str) -> TensorSpec:
    datatype = BY_ORT.get(node.type)
    if datatype is None:
        raise ModelError(
            f"{side} '{node.name}' is {node.type}; only plain tensors can be served "
            "(scikit-learn classifiers: convert with zipmap=False)"
        )
    shape = tuple(size if isinstance(size, int) and size >= 0 else -1 for size in node.shape)
    return TensorSpec(node.name, datatype.name, shape)


def _to_ort(array: Array, datatype: str) -> ort.OrtValue:
    if datatype == "BF16":
        return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(
            np.require(array, requirements="C"),  # unlike ascontiguousarray it leaves a scalar one
            DATATYPES["BF16"].onnx,
        )
    return ort.OrtValue.ortvalue_from_numpy(array)


def _from_ort(value: ort.OrtValue) -> Array:
    if value.data_type() == "tensor(bfloat16)":
        shape = tuple(value.shape())
        bits = np.empty(shape, np.uint16)
        ctypes.memmove(bits.ctypes.data, value.data_ptr(), bits.nbytes)
        return bits
    return value.numpy()  # type: ignore[no-any-return]


def _strings(array: Array) -> Array:
    """ONNX strings are UTF-8 text; BYTES elements become `str`."""
    texts = np.empty(array.size, object)
    try:
        texts[:] = [item.decode() for item in array.flat]
    except UnicodeDecodeError as error:
        raise InvalidInputError(f"a BYTES element is not UTF-8 text: {error.reason}") from error
    return texts.reshape(array.shape)


def _bytes(array: Array) -> Array:
    blobs = np.empty(array.size, object)
    blobs[:] = [str(item).encode() for item in array.flat]
    return blobs.reshape(array.shape)


def _reason(error: Exception) -> str:
    """onnxruntime's message on one line, without its status prefix and source locations."""
    text = " ".join(str(error).split())
    text = text.split("Status Message: ")[-1]
    if text.startswith("[ONNXRuntimeError]"):
        text = text.split(" : ", 3)[-1]
    return text[:400]
