"""Recipes: ordered passes, as data. A recipe makes one candidate.

A recipe with `instead_of` is a fallback: it runs only when the candidate of that recipe missed a gate.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sampan.contract.errors import InvalidInputError


@dataclass(frozen=True, slots=True)
class Step:
    """One pass with its parameters, which are plain JSON values."""

    name: str
    params: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Recipe:
    """A name and the passes in order."""

    name: str
    steps: tuple[Step, ...]
    instead_of: str | None = None


CONSTANTS = Step("constants")
OPSET = Step("opset")
OPTIMIZE = Step("optimize")
INT8 = Step("int8-weights")
FP16 = Step("fp16-weights")
EMBEDDING = Step("int8-embedding")
MATMUL = Step("int8-matmul")
ENDS = {"ends": 1 / 6}  # a transformer of six layers keeps one at either end in float

RECIPES = (
    Recipe("optimize", (CONSTANTS, OPTIMIZE)),
    Recipe("int8-weights", (CONSTANTS, OPSET, INT8)),
    Recipe("optimize+int8-weights", (CONSTANTS, OPSET, OPTIMIZE, INT8)),
    Recipe("fp16-weights", (CONSTANTS, FP16)),
    Recipe("optimize+fp16-weights", (CONSTANTS, OPTIMIZE, FP16)),
    Recipe("dynamic-int8", (CONSTANTS, EMBEDDING, MATMUL, OPTIMIZE)),
    Recipe("dynamic-int8+int8-weights", (CONSTANTS, OPSET, EMBEDDING, MATMUL, OPTIMIZE, INT8)),
    Recipe(
        "int8-weights-mixed",
        (CONSTANTS, OPSET, OPTIMIZE, Step("int8-weights", ENDS), FP16),
        instead_of="optimize+int8-weights",
    ),
    Recipe(
        "dynamic-int8-mixed",
        (CONSTANTS, EMBEDDING, Step("int8-matmul", ENDS), OPTIMIZE),
        instead_of="dynamic-int8",
    ),
)
BY_NAME = {recipe.name: recipe for recipe in RECIPES}


def choose(names: Sequence[str], fast: bool) -> tuple[Recipe, ...]:
    """The recipes of these names as they are asked for; without names all, or all but fallbacks when `fast`.

    Raises:
        InvalidInputError: an unknown name; says which there are.
    """
    unknown = next((name for name in names if name not in BY_NAME), None)
    if unknown is not None:
        raise InvalidInputError(f"there is no recipe '{unknown}'; choose of {', '.join(BY_NAME)}")
    if names:
        return tuple(Recipe(name, BY_NAME[name].steps) for name in dict.fromkeys(names))
    return tuple(recipe for recipe in RECIPES if not (fast and recipe.instead_of))
