"""A mix of precisions as a value: which levers are pulled, for which layers, and the recipe that this means."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from sampan.compress.graph import Layer
from sampan.compress.recipes import STRIP, Recipe, Step


@dataclass(frozen=True, slots=True)
class Lever:
    """A way to change layers: exact steps before, and the step that lowers precision and takes `only`."""

    name: str
    step: Step
    before: tuple[Step, ...] = ()

    def steps(self, only: tuple[str, ...] | None) -> tuple[Step, ...]:
        limited = {"only": list(only)} if only is not None else {}
        return tuple(Step(step.name, {**step.params, **limited}) for step in (*self.before, self.step))


@dataclass(frozen=True, slots=True)
class Pull:
    """A lever with its layers, by their weights' names; None for every layer that it can change."""

    lever: Lever
    only: tuple[str, ...] | None = None
    of: int = 0

    @property
    def name(self) -> str:
        return self.lever.name if self.only is None else f"{self.lever.name}[{len(self.only)} of {self.of}]"


@dataclass(frozen=True, slots=True)
class Mix:
    """Exact steps; lookups in few bits; layers computed in few bits; the weights that are left stored in few bits."""

    exact: tuple[Step, ...]
    optimize: Step
    lookups: tuple[Step, ...] = ()
    compute: tuple[Pull, ...] = ()
    storage: tuple[Step, ...] = ()
    label: str = "exact"
    weights: str = ""
    tables: str = ""

    def pull(self, pull: Pull) -> "Mix":
        others = tuple(other for other in self.compute if other.lever.step.name != pull.lever.step.name)
        return replace(self, compute=(*others, pull))

    def recipe(self, found: Sequence[Layer]) -> Recipe:
        """The steps in the order in which they can be done."""
        compute = tuple(step for pull in self.compute for step in pull.lever.steps(pull.only))
        fused = (self.optimize,) if self.compute else ()
        steps = (*self.exact, *self.lookups, *compute, *fused, *self.storage, STRIP)
        names = [self.label, self.tables, *(pull.name for pull in self.compute), self.weights]
        return Recipe("+".join(name for name in names if name), steps, layers=self._precisions(found))

    def _precisions(self, found: Sequence[Layer]) -> dict[str, str]:
        precisions = {layer.name: self.weights or "float32" for layer in found}
        for pull in self.compute:
            operators = OPERATORS.get(pull.lever.step.name, ())
            for layer in found:
                if can(layer, operators) and (pull.only is None or layer.name in pull.only):
                    precisions[layer.name] = pull.lever.step.name
        return precisions


@dataclass(frozen=True, slots=True)
class Variant:
    """One way to use a lever: what is done to a mix first, and the lever that is pulled for its layers, if any."""

    prepare: Callable[[Mix], Mix]
    lever: Lever | None = None

    def applied(self, mix: Mix) -> Mix:
        prepared = self.prepare(mix)
        return prepared if self.lever is None else prepared.pull(Pull(self.lever))


# The operators of the layers that a step changes; a step that is not here takes no `only`.
OPERATORS = {
    "int8-matmul": ("MatMul", "Gemm"),
    "static-int8": ("Conv",),
}


def can(layer: Layer, operators: Sequence[str]) -> bool:
    """Whether a step for these operators changes the layer; convolutions in groups stay as they are."""
    group = next((attribute.i for attribute in layer.node.attribute if attribute.name == "group"), 1)
    return layer.node.op_type in operators and group == 1
