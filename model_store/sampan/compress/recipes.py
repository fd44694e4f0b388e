"""Recipes: ordered passes, as data. A recipe makes one candidate.

The search (`search.py`) makes its own out of the steps here; the named ones can be asked for. A recipe with
`instead_of` is a fallback: it runs only when the candidate of that recipe missed a gate.
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

    def __hash__(self) -> int:
        return hash((self.name, repr(self.params)))


@dataclass(frozen=True, slots=True)
class Recipe:
    """A name and the passes in order; `layers` says which layers have which precision, where not all are alike."""

    name: str
    steps: tuple[Step, ...]
    instead_of: str | None = None
    layers: Mapping[str, str] = field(default_factory=dict)


CONSTANTS = Step("constants")
OPSET = Step("opset")
OPTIMIZE = Step("optimize")
# onnxruntime's SkipLayerNormalization is slower on CPUs than the addition and normalisation that it fuses
UNSKIPPED = Step("optimize", {"without": ["SkipLayerNormFusion", "BiasSkipLayerNormFusion"]})
SPLIT = Step("split")
SHARE = Step("share")
STRIP = Step("strip")
FUSE = Step("fuse")
INT8 = Step("int8-weights")
INT4 = Step("int4-weights")
BLOCKS = Step("int8-blocks")
OPSET21 = Step("opset", {"at_least": 21})  # the first with scales by blocks
FP16 = Step("fp16-weights")
EMBEDDING = Step("int8-embedding")
EMBEDDING4 = Step("int4-embedding")
MATMUL = Step("int8-matmul")
LSTM = Step("int8-lstm")
UNFOLD = Step("unfold")
ENDS = {"ends": 1 / 6}  # a transformer of six layers keeps one at either end in float
PATTERNS = (Step("activations"), Step("lookup"), Step("fold"), Step("attention"))


def exact(optimize: Step) -> tuple[Step, ...]:
    """Everything that leaves the answers as they are."""
    return (CONSTANTS, OPSET, optimize, *PATTERNS, optimize, SPLIT, SHARE)


RECIPES = (
    Recipe("optimize", (CONSTANTS, OPTIMIZE)),
    Recipe("exact", (*exact(OPTIMIZE), STRIP)),
    Recipe("int8-weights", (CONSTANTS, OPSET, INT8)),
    Recipe("exact+int8-weights", (*exact(OPTIMIZE), INT8, STRIP)),
    Recipe("exact+int8-blocks", (*exact(OPTIMIZE), BLOCKS, INT8, STRIP)),
    Recipe("exact+int4-weights", (*exact(OPTIMIZE), OPSET21, INT4, INT8, STRIP)),
    Recipe("fp16-weights", (CONSTANTS, FP16)),
    Recipe("exact+fp16-weights", (*exact(OPTIMIZE), FP16, STRIP)),
    Recipe("fp16", (CONSTANTS, OPTIMIZE, Step("fp16"))),
    Recipe("blocks-int8", (*exact(UNSKIPPED), EMBEDDING, Step("blocks", {"bits": 8}), INT8, STRIP)),
    Recipe("blocks-int4", (*exact(UNSKIPPED), EMBEDDING, Step("blocks", {"bits": 4}), INT8, STRIP)),
    Recipe("dynamic-int8", (CONSTANTS, EMBEDDING, MATMUL, OPTIMIZE)),
    Recipe("exact+dynamic-int8", (*exact(UNSKIPPED), EMBEDDING, MATMUL, UNSKIPPED, INT8, STRIP)),
    Recipe("unfolded+dynamic-int8", (*exact(OPTIMIZE), UNFOLD, EMBEDDING, MATMUL, OPTIMIZE, INT8, STRIP)),
    Recipe("exact+static-int8", (*exact(OPTIMIZE), Step("static-int8"), OPTIMIZE, INT8, STRIP)),
    Recipe("simplify", (CONSTANTS, Step("simplify"), STRIP)),
    Recipe("fuse", (CONSTANTS, FUSE)),
    Recipe("prune-magnitude", (CONSTANTS, Step("prune", {"kind": "magnitude", "share": 0.3}))),
    Recipe("prune-2:4", (CONSTANTS, Step("prune", {"kind": "2:4"}))),
    Recipe("prune-structured", (CONSTANTS, Step("prune", {"kind": "structured", "share": 0.1}))),
    Recipe(
        "int8-weights-mixed",
        (CONSTANTS, OPSET, OPTIMIZE, Step("int8-weights", ENDS), FP16),
        instead_of="exact+int8-weights",
    ),
    Recipe(
        "dynamic-int8-mixed",
        (CONSTANTS, EMBEDDING, Step("int8-matmul", ENDS), OPTIMIZE),
        instead_of="dynamic-int8",
    ),
)
BY_NAME = {recipe.name: recipe for recipe in RECIPES}


def choose(names: Sequence[str]) -> tuple[Recipe, ...]:
    """The recipes of these names as they are asked for.

    Raises:
        InvalidInputError: an unknown name; says which there are.
    """
    unknown = next((name for name in names if name not in BY_NAME), None)
    if unknown is not None:
        raise InvalidInputError(f"there is no recipe '{unknown}'; choose of {', '.join(BY_NAME)}")
    return tuple(Recipe(name, BY_NAME[name].steps) for name in dict.fromkeys(names))
