"""PyTorch: a module's class or factory with its weights, TorchScript, `torch.export` programs, pickled modules.

    read → example inputs → run once (names of the outputs) → torch.onnx.export

Exporters are tried in turn: `torch.export` with variable axes, TorchScript, `torch.export` with whatever axes the
code fixes. Source: https://docs.pytorch.org/docs/stable/onnx.html
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import itertools
import os
import pickle
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sampan.convert.workers.run import Export, Task

PACKAGES = ("torch", "onnx", "onnxscript")
WEIGHTS_ONLY = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
# Of variable axes: unequal, or the exporter takes them for one; and none that generated samples have, so that a
# graph which holds for these sizes alone is found out.
BATCH, SIZES = 2, (24, 40, 48, 56, 72)
WRAPPERS = ("state_dict", "model_state_dict", "model")


def export(task: Task) -> Export:
    if task.format != "torch-pickle":
        os.environ[WEIGHTS_ONLY] = "1"  # no pickle runs code, wherever torch meets one
    torch, _, _ = task.need(torch="torch", onnx="onnx", onnxscript="onnxscript")
    task.say("reading the source")
    if task.format == "torch-export":
        return export_program(task, torch)
    module = READERS[task.format](task, torch)
    names, example, axes = example_inputs(task, torch, module)
    flat = module if task.format == "torchscript" else flat_module(torch, module, names)
    outputs = output_names(task, torch, module, names, example)
    exporter = export_module(task, torch, flat, example, names, outputs, axes)

    def run(inputs: dict[str, Any]) -> list[Any]:
        with torch.no_grad():
            answer = flat(*(torch.from_numpy(inputs[name]) for name in names))
            return [plain(tensor) for tensor in leaves(torch, answer)]

    return task.done(exporter, run, packages=PACKAGES)


def read_module(task: Task, torch: Any) -> Any:
    """The module that `module:attribute` names, with its weights."""
    found = getattr(imported(task), str(task.attribute), None)
    if found is None:
        raise task.refusal(f"{task.source} has no '{task.attribute}'; write module:attribute of an nn.Module")
    is_class = inspect.isclass(found)
    module = found if isinstance(found, torch.nn.Module) else found() if callable(found) else found
    if not isinstance(module, torch.nn.Module):
        raise task.refusal(f"{task.attribute} gives a {type(module).__name__}, not an nn.Module")
    if task.weights:
        load_weights(task, torch, module)
    elif is_class and any(True for _ in module.parameters()):
        raise task.refusal(
            f"{task.attribute} is a class and its weights would be random; give them with --weights FILE"
        )
    return module.eval()


def imported(task: Task) -> Any:
    if not task.source.endswith(".py"):
        return importlib.import_module(task.source)
    spec = importlib.util.spec_from_file_location(Path(task.source).stem, task.source)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def load_weights(task: Task, torch: Any, module: Any) -> None:
    """Safetensors, or a state dict; both without running code."""
    weights = str(task.weights)
    if weights.endswith(".safetensors"):
        safetensors = task.need(safetensors__torch="safetensors")
        state = safetensors.load_file(weights)
    else:
        state = load_state(task, torch, weights)
    inner = [state[key] for key in WRAPPERS if isinstance(state.get(key), Mapping)]
    state = dict(inner[0] if inner else state)
    torch.nn.modules.utils.consume_prefix_in_state_dict_if_present(state, "module.")  # DistributedDataParallel's
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        raise task.refusal(
            f"{Path(weights).name} does not fit {task.attribute}: {' '.join(str(error).split())[:300]}"
        ) from error


def load_state(task: Task, torch: Any, weights: str) -> Any:
    try:
        return torch.load(weights, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise task.refusal(
            f"{Path(weights).name} holds more than weights, or is damaged; save module.state_dict() alone"
        ) from error


def read_script(task: Task, torch: Any) -> Any:
    return torch.jit.load(task.source, map_location="cpu").eval()


def read_pickle(task: Task, torch: Any) -> Any:
    module = torch.load(task.source, map_location="cpu", weights_only=False)
    if not isinstance(module, torch.nn.Module):
        raise task.refusal(f"{Path(task.source).name} holds a {type(module).__name__}, not an nn.Module")
    return module.eval()


READERS = {"torch-module": read_module, "torchscript": read_script, "torch-pickle": read_pickle}


def export_program(task: Task, torch: Any) -> Export:
    """A program knows its inputs, its outputs and what varies."""
    program = load_program(task, torch)
    task.say("exporting (torch.export)")
    torch.onnx.export(program, f=str(task.model), dynamo=True, verbose=False, external_data=False)
    module, tree = program.module(), importlib.import_module("torch.utils._pytree")
    names = input_names(task)

    def run(inputs: dict[str, Any]) -> list[Any]:
        tensors = [torch.from_numpy(inputs[name]) for name in names]
        args, kwargs = tree.tree_unflatten(tensors, program.call_spec.in_spec)
        with torch.no_grad():
            return [plain(tensor) for tensor in leaves(torch, module(*args, **kwargs))]

    return task.done("torch.onnx.export (dynamo)", run, packages=PACKAGES)


def load_program(task: Task, torch: Any) -> Any:
    """The program; one with pickled objects in it only with trust."""
    named = Path(task.source).name
    try:
        return torch.export.load(task.source)
    except pickle.UnpicklingError:
        task.danger(f"{named} holds pickled objects: loading them runs whatever code its author put into them")
    del os.environ[WEIGHTS_ONLY]
    return torch.export.load(task.source)


def input_names(task: Task) -> list[str]:
    """Of the graph that was written, in its order."""
    import onnx

    return [entry.name for entry in onnx.load(str(task.model)).graph.input]


def example_inputs(task: Task, torch: Any, module: Any) -> tuple[list[str], list[Any], list[dict[int, str]]]:
    """Names, tensors and variable axes of the inputs, from `--input` or from the samples."""
    if task.inputs:
        sizes = axis_sizes(task)
        shapes = [[size if isinstance(size, int) and size > 0 else sizes[key(entry, axis)]
                   for axis, size in enumerate(entry["shape"])] for entry in task.inputs]  # fmt: skip
        axes = [{axis: key(entry, axis) for axis, size in enumerate(entry["shape"]) if key(entry, axis) in sizes}
                for entry in task.inputs]  # fmt: skip
        tensors = [made(torch, entry["dtype"], shape) for entry, shape in zip(task.inputs, shapes, strict=True)]
        return [entry["name"] for entry in task.inputs], tensors, axes
    given = task.examples()
    if not given:
        raise task.refusal(
            f"{Path(task.source).name} does not say what goes in; give --samples FILE.npz, "
            "or --input NAME:DATATYPE[SHAPE] for each input, such as --input 'x:FP32[batch,3,224,224]'"
        )
    names = [name for name in parameters(module) if name in given]
    names = names if set(names) == set(given) else list(given)
    example = example_of(task, torch, module, names, given)
    return names, example, [{0: "batch"} if tensor.ndim else {} for tensor in example]


def key(entry: Mapping[str, Any], axis: int) -> str:
    """A variable axis' name: what was said, "batch" for the first, else of the input and its place."""
    size = entry["shape"][axis]
    if isinstance(size, str):
        return size
    return "" if size > 0 else "batch" if axis == 0 else f"{entry['name']}_{axis}"


def axis_sizes(task: Task) -> dict[str, int]:
    names = dict.fromkeys(key(entry, axis) for entry in task.inputs for axis in range(len(entry["shape"])))
    first = {key(entry, 0) for entry in task.inputs if entry["shape"]}
    others = itertools.cycle(SIZES)
    return {name: BATCH if name in first else next(others) for name in names if name}


def made(torch: Any, dtype: str, shape: Sequence[int]) -> Any:
    """Normal numbers for floats, zeros and ones for the rest."""
    wanted = torch.from_numpy(importlib.import_module("numpy").zeros(0, dtype)).dtype
    generator = torch.Generator().manual_seed(0)
    if wanted.is_floating_point:
        return torch.randn(*shape, generator=generator).to(wanted)
    return torch.randint(0, 2, tuple(shape), generator=generator).to(wanted)


def example_of(task: Task, torch: Any, module: Any, names: list[str], given: Mapping[str, Any]) -> list[Any]:
    """Two rows of stacked samples, or the first sample, whichever the module takes."""
    reason = ""
    for rows in (slice(BATCH), slice(None), 0):
        tensors = [torch.from_numpy(given[name][rows].copy()) for name in names if given[name].ndim]
        try:
            with torch.no_grad():
                call(module, names, tensors)
        except Exception as error:
            reason = reason or " ".join(str(error).split())[:200]
            continue
        return [torch.cat([tensor, tensor]) if tensor.shape[:1] == (1,) else tensor for tensor in tensors]
    raise task.refusal(
        f"{Path(task.source).name} does not run on the samples ({reason}); their keys are {', '.join(names)}"
    )


def parameters(module: Any) -> list[str]:
    """Names of what `forward` takes."""
    if hasattr(module, "graph"):
        return [argument.name for argument in module.forward.schema.arguments[1:]]
    return list(inspect.signature(module.forward).parameters)


def call(module: Any, names: Sequence[str], tensors: Sequence[Any]) -> Any:
    """By name where `forward` has these names, by position else."""
    if set(names) <= set(parameters(module)):
        return module(**dict(zip(names, tensors, strict=True)))
    return module(*tensors)


def flatten(task: Task, torch: Any, value: Any, name: str) -> Iterator[tuple[str, Any]]:
    """The tensors of an answer with their names: a dict's keys, a tuple's fields or places."""
    if isinstance(value, torch.Tensor):
        yield name, value
    elif value is None:
        return
    elif isinstance(value, Mapping):
        for field, part in value.items():
            yield from flatten(task, torch, part, str(field) if name == "output" else f"{name}_{field}")
    elif isinstance(value, (tuple, list)):
        fields = getattr(value, "_fields", [f"{name}_{index}" for index in range(len(value))])
        for field, part in zip(fields, value, strict=True):
            yield from flatten(task, torch, part, field)
    else:
        raise task.refusal(f"'{name}' is a {type(value).__name__}, not a tensor; return tensors from forward")


def output_names(task: Task, torch: Any, module: Any, names: list[str], example: list[Any]) -> list[str]:
    with torch.no_grad():
        return [name for name, _ in flatten(task, torch, call(module, names, example), "output")]


def flat_module(torch: Any, module: Any, names: list[str]) -> Any:
    """The module with tensors in and tensors out, whatever it is called with itself."""

    class Flat(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.module = module

        def forward(self, *tensors: Any) -> Any:
            return tuple(leaves(torch, call(self.module, names, tensors)))

    return Flat().eval()


def leaves(torch: Any, value: Any) -> Iterator[Any]:
    """The tensors of an answer, in the order of `flatten`."""
    if isinstance(value, torch.Tensor):
        yield value
    elif value is not None:
        for part in value.values() if isinstance(value, Mapping) else value:
            yield from leaves(torch, part)


def export_module(
    task: Task,
    torch: Any,
    module: Any,
    example: list[Any],
    names: list[str],
    outputs: list[str],
    axes: list[dict[int, str]],
) -> str:
    """Write the model; gives the exporter's name."""
    dims = {name: torch.export.Dim(name) for part in axes for name in part.values()}
    named = tuple({axis: dims[name] for axis, name in part.items()} for part in axes)
    free = tuple(dict.fromkeys(part, torch.export.Dim.AUTO) for part in axes)
    common: dict[str, Any] = {"input_names": names, "output_names": outputs, "verbose": False, "external_data": False}
    script = {"dynamo": False, "dynamic_axes": dict(zip(names, axes, strict=True))}
    attempts = [
        ("torch.onnx.export (dynamo)", {"dynamo": True, "dynamic_shapes": (named,)}),
        ("torch.onnx.export (TorchScript)", script),
        ("torch.onnx.export (dynamo, fixed axes)", {"dynamo": True, "dynamic_shapes": (free,)}),
    ]
    reason: Exception | None = None
    for exporter, options in attempts[1:2] if task.format == "torchscript" else attempts:
        task.say(f"exporting ({exporter})")
        try:
            torch.onnx.export(module, tuple(example), f=str(task.model), **common, **options)
        except Exception as error:
            reason = reason or error
            continue
        loosen(task, torch, module, example, axes)
        return exporter
    raise task.refusal(f"{Path(task.source).name} cannot be exported: {cause(reason)}")


def loosen(task: Task, torch: Any, module: Any, example: list[Any], axes: list[dict[int, str]]) -> None:
    """Declare the axes of outputs that vary with the inputs' as variable, where the exporter took them for fixed."""
    import onnx

    grown = [longer(torch, tensor, part) for tensor, part in zip(example, axes, strict=True)]
    try:
        with torch.no_grad():
            answers = [list(leaves(torch, module(*tensors))) for tensors in (example, grown)]
    except Exception:  # it takes no other sizes, so there is nothing to compare
        return
    model = onnx.load(str(task.model), load_external_data=False)
    for output, before, after in zip(model.graph.output, *answers, strict=True):
        sizes = zip(output.type.tensor_type.shape.dim, before.shape, after.shape, strict=False)
        for axis, (size, first, second) in enumerate(sizes):
            if first != second and not size.dim_param:
                size.dim_param = f"{output.name}_{axis}"
    del model.graph.value_info[:]  # what the exporter says of tensors in between may be as wrong
    task.model.write_bytes(model.SerializeToString())


def longer(torch: Any, tensor: Any, axes: Mapping[int, str]) -> Any:
    """One element more along each variable axis."""
    for axis in axes:
        tensor = torch.cat([tensor, tensor.narrow(axis, 0, 1)], axis)
    return tensor


def cause(error: BaseException | None) -> str:
    """The exporter's own reason, not the advice around it."""
    while error is not None and error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def plain(tensor: Any) -> Any:
    """A numpy array; BF16 as float32, which holds it exactly."""
    tensor = tensor.detach().cpu()
    return (tensor.float() if str(tensor.dtype) == "torch.bfloat16" else tensor).numpy()
