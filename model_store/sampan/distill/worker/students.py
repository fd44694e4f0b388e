"""Students by name (`mlp:64,32`, `conv1d:16,32,32`, `cnn:16,32`), by default, or by `module:function`.

A student takes the inputs of the graph in its order, each [rows, …], and gives one raw tensor an output: what
comes before softmax, sigmoid or scale. Nothing here depends on the other rows of a batch (no batch
normalisation, no dropout), so that several processes learn what one does.
"""

import importlib
import importlib.util
import re
import sys
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

CHANNELS = (1, 3, 4)  # sizes that tell an image's channel axis
MLP, CONV1D, CNN = "mlp", "conv1d", "cnn"
# what is tried in turn when only the family is known; the first within the budget of parameters is taken
SIZES: dict[str, list[tuple[int, ...]]] = {
    MLP: [(width, width // 2) for width in (256, 192, 128, 96, 64, 48, 32, 24, 16, 8, 4)],
    CONV1D: [(width // 2, width, width) for width in (128, 96, 64, 48, 32, 16, 8)],
    CNN: [(width, 2 * width, 4 * width) for width in (32, 24, 16, 12, 8, 4)],
}


class UsageError(Exception):
    """Raise with one sentence that says what cannot be trained, and what to try."""


class Scale(nn.Module):  # type: ignore[misc]
    """Shift and scale by what the training rows show, per feature; constant features become 0."""

    def __init__(self, rows: np.ndarray[Any, Any]) -> None:
        super().__init__()
        values = rows.astype(np.float64)
        spread = values.std(0)
        self.register_buffer("shift", torch.from_numpy(values.mean(0)).float())
        self.register_buffer("scale", torch.from_numpy(np.where(spread > 1e-6, spread, 1.0)).float())

    def forward(self, x: Tensor) -> Tensor:
        return (x.float() - self.shift) / self.scale


class Mlp(nn.Module):  # type: ignore[misc]
    """All inputs side by side as numbers, then dense layers with ReLU."""

    def __init__(self, inputs: Sequence[np.ndarray[Any, Any]], widths: Sequence[int]) -> None:
        super().__init__()
        self.scales = nn.ModuleList(Scale(rows.reshape(len(rows), -1)) for rows in inputs)
        sizes = [sum(int(np.prod(rows.shape[1:])) for rows in inputs), *widths]
        layers = [part for a, b in pairwise(sizes) for part in (nn.Linear(a, b), nn.ReLU())]
        self.layers = nn.Sequential(*layers)
        self.features = sizes[-1]

    def forward(self, *inputs: Tensor) -> Tensor:
        flat = [scale(x.flatten(1)) for scale, x in zip(self.scales, inputs, strict=True)]
        return self.layers(torch.cat(flat, 1))


class Conv1d(nn.Module):  # type: ignore[misc]
    """Tokens [rows, length] → embedding → strided convolutions → the mean and the maximum over the length.

    The first width is the embedding's. Ids beyond those of the training rows count as the last one.
    """

    def __init__(self, inputs: Sequence[np.ndarray[Any, Any]], widths: Sequence[int]) -> None:
        super().__init__()
        self.last = int(inputs[0].max())
        self.embedding = nn.Embedding(self.last + 1, widths[0])
        layers: list[nn.Module] = []
        for index, (a, b) in enumerate(pairwise(widths)):
            kernel, stride = (8, 4) if index == 0 else (4, 2)
            layers += [nn.Conv1d(a, b, kernel, stride, padding=kernel // 2), nn.ReLU()]
        self.layers = nn.Sequential(*layers)
        self.features = 2 * widths[-1]

    def forward(self, tokens: Tensor) -> Tensor:
        vectors = self.embedding(tokens.long().clamp(0, self.last)).transpose(1, 2)
        found = self.layers(vectors)
        return torch.cat([found.mean(2), found.amax(2)], 1)


class Cnn(nn.Module):  # type: ignore[misc]
    """Images [rows, channels, height, width] or channels last → strided convolutions → the mean over the image."""

    def __init__(self, inputs: Sequence[np.ndarray[Any, Any]], widths: Sequence[int]) -> None:
        super().__init__()
        self.channels_last = inputs[0].shape[1] not in CHANNELS and inputs[0].shape[3] in CHANNELS
        axis = 3 if self.channels_last else 1
        self.scale = Scale(np.moveaxis(inputs[0], axis, -1).reshape(-1, inputs[0].shape[axis]))
        sizes = [inputs[0].shape[axis], *widths]
        layers = [part for a, b in pairwise(sizes) for part in (nn.Conv2d(a, b, 3, stride=2, padding=1), nn.ReLU())]
        self.layers = nn.Sequential(*layers)
        self.features = sizes[-1]

    def forward(self, image: Tensor) -> Tensor:
        last = image if self.channels_last else image.permute(0, 2, 3, 1)
        return self.layers(self.scale(last).permute(0, 3, 1, 2)).mean((2, 3))


FAMILIES: dict[str, Callable[..., nn.Module]] = {MLP: Mlp, CONV1D: Conv1d, CNN: Cnn}


class Student(nn.Module):  # type: ignore[misc]
    """A body with one last layer for each raw output; `shapes` are theirs, without the rows."""

    def __init__(self, body: Any, shapes: Sequence[tuple[int, ...]]) -> None:
        super().__init__()
        self.body = body
        self.shapes = list(shapes)
        self.last = nn.ModuleList(nn.Linear(body.features, int(np.prod(shape))) for shape in shapes)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        found = self.body(*inputs)
        flat = [layer(found) for layer in self.last]
        return tuple(
            part if len(shape) == 1 else part.reshape(-1, *shape) for part, shape in zip(flat, self.shapes, strict=True)
        )


def build(task: dict[str, Any], inputs: Sequence[np.ndarray[Any, Any]], shapes: Sequence[tuple[int, ...]]) -> Any:
    """The student of a task and its name, as it would be typed.

    Args:
        inputs: the training rows, an array for each input.
        shapes: of each output, without the rows.

    Raises:
        UsageError: the words name no student, or none that takes these inputs.
    """
    words = task["student"]
    named = re.fullmatch(r"(\w+)(?::([\d,]+))?", words) if words else None
    if words and (named is None or named[1] not in FAMILIES):
        return own(words, task), words
    family = named[1] if named else _family(inputs)
    if refusal := _refusal(family, inputs, [spec["shape"] for spec in task["inputs"]]):
        raise UsageError(refusal)
    if named and named[2]:
        sizes = [[int(width) for width in named[2].split(",") if width]]
    else:
        sizes = [list(widths) for widths in SIZES[family]]
    for widths in sizes:
        torch.manual_seed(task["seed"])
        student = Student(FAMILIES[family](inputs, widths), shapes)
        if count(student) <= task["budget"]:
            break
    return student, f"{family}:{','.join(map(str, widths))}"


def own(words: str, task: dict[str, Any]) -> nn.Module:
    """The module that `module:function` or `file.py:function` returns for the signature.

    Raises:
        UsageError: no such module or function, or it returns something else.
    """
    place, _, name = words.rpartition(":")
    if not place:
        raise UsageError(f"there is no student '{words}'; take {', '.join(FAMILIES)} with widths, or module:function")
    try:
        function = getattr(_module(place), name)
    except (ImportError, OSError, AttributeError) as error:
        raise UsageError(f"the student '{words}' cannot be found: {error}") from error
    torch.manual_seed(task["seed"])
    student = function({side: task[side] for side in ("inputs", "outputs")})
    if not isinstance(student, nn.Module):
        raise UsageError(f"{words} returned {type(student).__name__}, not a torch.nn.Module")
    return student


def count(module: nn.Module) -> int:
    """Parameters of a module."""
    return sum(parameter.numel() for parameter in module.parameters())


def _module(place: str) -> Any:
    if not place.endswith(".py"):
        sys.path.insert(0, str(Path.cwd()))
        return importlib.import_module(place)
    spec = importlib.util.spec_from_file_location("student", place)
    if spec is None or spec.loader is None:
        raise ImportError(f"{place} is no Python file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _family(inputs: Sequence[np.ndarray[Any, Any]]) -> str:
    first = inputs[0]
    if len(inputs) == 1 and first.ndim == 4 and (first.shape[1] in CHANNELS or first.shape[3] in CHANNELS):
        return CNN
    if len(inputs) == 1 and first.ndim == 2 and first.dtype.kind in "iu" and first.shape[1] > 1:
        return CONV1D
    return MLP


def _refusal(family: str, inputs: Sequence[np.ndarray[Any, Any]], shapes: Sequence[Sequence[int]]) -> str:
    first = inputs[0]
    if family == MLP and any(size < 0 for shape in shapes for size in shape[1:]):
        return "the student mlp takes inputs of fixed size; name one with --student module:function"
    if family == CNN and (len(inputs) > 1 or first.ndim != 4):
        return "the student cnn takes one input of images [rows, channels, height, width]; take mlp or module:function"
    if family == CONV1D and (len(inputs) > 1 or first.ndim != 2 or first.dtype.kind not in "iu"):
        return "the student conv1d takes one input of integer tokens [rows, length]; take mlp or module:function"
    if family == MLP and len(inputs) > 1 and any(rows.dtype.kind in "iu" for rows in inputs):
        return "no default student takes several inputs of integers; name one with --student module:function"
    return ""
