"""TensorFlow: Keras models (`.keras`, `.h5`) and SavedModels.

    read → a function with named inputs and outputs → tf2onnx

Source: https://github.com/onnx/tensorflow-onnx (tf2onnx.convert.from_function).
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sampan.convert.workers.run import Export, Task

PACKAGES = ("tensorflow", "tensorflow-cpu", "keras", "tf2onnx", "onnx")
OPSET = 18  # the newest that tf2onnx writes


def export(task: Task) -> Export:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ["KERAS_BACKEND"] = "tensorflow"
    tensorflow, tf2onnx = task.need(tensorflow="tensorflow-cpu", tf2onnx="tf2onnx")
    task.say("reading the source")
    reader = read_saved if task.format == "saved-model" else read_keras
    specs, call = reader(task, tensorflow)
    names = list(specs)
    function = tensorflow.function(lambda *tensors: call(dict(zip(names, tensors, strict=True))))
    signature = [tensorflow.TensorSpec(spec.shape, spec.dtype, name=name) for name, spec in specs.items()]
    task.say("exporting (tf2onnx)")
    model, _ = tf2onnx.convert.from_function(function, input_signature=signature, opset=OPSET)
    outputs = sorted_outputs(model, function.get_concrete_function(*signature).structured_outputs)
    task.model.write_bytes(model.SerializeToString())

    def run(inputs: dict[str, Any]) -> list[Any]:
        answer = function(*(tensorflow.constant(inputs[name]) for name in names))
        return [answer[name].numpy() for name in outputs]

    return task.done("tf2onnx", run, packages=PACKAGES)


def read_keras(task: Task, tensorflow: Any) -> tuple[dict[str, Any], Any]:
    """Input specs by name, and a call from tensors by name to outputs by name."""
    keras = task.need(keras="keras")
    model = load_keras(task, keras)
    if not getattr(model, "inputs", None):
        raise task.refusal(
            f"{Path(task.source).name} was saved before it had inputs; call it once on data, then save it"
        )
    specs = {tensor.name: tensor for tensor in model.inputs}
    if len(specs) == 1:
        specs = {task.only_name(name): tensor for name, tensor in specs.items()}

    def call(inputs: Mapping[str, Any]) -> dict[str, Any]:
        given = [inputs[name] for name in specs]
        structure = keras.tree.pack_sequence_as(getattr(model, "_inputs_struct", given[0]), given)
        return named(keras, model, model(structure, training=False))

    return {name: tensorflow.TensorSpec(tensor.shape, tensor.dtype) for name, tensor in specs.items()}, call


def load_keras(task: Task, keras: Any) -> Any:
    """The model; one with Python code in it, a Lambda layer's, only with trust."""
    named = Path(task.source).name
    try:
        return keras.models.load_model(task.source, compile=False, safe_mode=True)
    except Exception as error:  # Keras and h5py raise what they like
        if "safe_mode" not in str(error) and "unsafe" not in str(error):
            raise task.refusal(f"{named} cannot be read: {advice(error)}") from error
    task.danger(f"{named} has a Lambda layer: its Python code runs when the model is loaded")
    return keras.models.load_model(task.source, compile=False, safe_mode=False)


def advice(error: Exception) -> str:
    """Keras' own reason, with what helps."""
    text = " ".join(str(error).split())
    unknown = re.search(r"(?:Could not locate class|Unknown layer:?) '?(\w+)", text)
    if unknown:
        return f"'{unknown[1]}' is code of its author's; save the model with model.export(FOLDER) and add that folder"
    return text[:300]


def named(keras: Any, model: Any, answer: Any) -> dict[str, Any]:
    """Outputs by name: a dict's keys, several outputs' layers, or "output"."""
    if isinstance(answer, Mapping):
        return dict(answer)
    flat = keras.tree.flatten(answer)
    names = getattr(model, "output_names", None) or [f"output_{index}" for index in range(len(flat))]
    return dict(zip(names, flat, strict=True)) if len(flat) > 1 else {"output": flat[0]}


def read_saved(task: Task, tensorflow: Any) -> tuple[dict[str, Any], Any]:
    """The signature "serving_default", or the only one."""
    model = tensorflow.saved_model.load(task.source)
    chosen = chosen_signature(task, list(model.signatures))
    specs = model.signatures[chosen].structured_input_signature[1]
    keys = list(specs)
    names = {task.only_name(keys[0]): keys[0]} if len(keys) == 1 else {key: key for key in sorted(keys)}

    def call(inputs: Mapping[str, Any]) -> Any:
        return model.signatures[chosen](**{key: inputs[name] for name, key in names.items()})

    return {name: specs[key] for name, key in names.items()}, call


def chosen_signature(task: Task, signatures: list[str]) -> str:
    for name in ("serving_default", "serve"):
        if name in signatures:
            return name
    if len(signatures) != 1:
        found = ", ".join(signatures) or "none"
        raise task.refusal(
            f"{Path(task.source).name} needs a signature 'serving_default' (it has {found}); save it with one"
        )
    return signatures[0]


def sorted_outputs(model: Any, structure: Mapping[str, Any]) -> list[str]:
    """The outputs' names in the graph's order."""
    return [entry.name if entry.name in structure else entry.name.split(":")[0] for entry in model.graph.output]
