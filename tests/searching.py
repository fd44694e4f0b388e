"""What tests of the search share: a bench of simple rules instead of models and clocks, and a search over it."""

from dataclasses import dataclass, field

from onnx import helper

from sampan.compress.graph import Layer
from sampan.compress.journal import Journal
from sampan.compress.recipes import UNFOLD
from sampan.compress.report import Candidate
from sampan.compress.search import Clock, Search
from sampan.compress.tasks import Latency
from sampan.contract.manifest import GateEntry
from sampan.contract.metrics import parse_gate

GATE = parse_gate("cosine>=0.99")
ALLOWED = 0.01  # of the sum of errors
SIZES = {"int4-weights": 150, "int8-blocks": 290, "int8-weights": 260, "fp16-weights": 500}  # of what is done first


@dataclass
class Bench:
    """A model whose layers add their errors up: integer layers are fast, small weights are small.

    `errors` are those of a layer computed in integers, `factors` what a variant makes of them, `stored` those of
    weights stored in few bits; measuring takes `seconds` of a clock that the test owns.
    """

    errors: dict[str, float]
    factors: dict[str, float] = field(default_factory=dict)
    stored: dict[str, float] = field(default_factory=dict)
    operator: str = "MatMul"
    found: dict[str, int] = field(default_factory=dict)
    embedding: tuple[int, ...] = ()
    convolutions: tuple[str, ...] = ()
    sizes: dict[str, int] = field(default_factory=dict)
    impossible: tuple[str, ...] = ()
    broken: str = "nothing"
    speeds: dict[str, float] = field(default_factory=dict)
    reached: int = 99
    seconds: float = 10.0
    time: float = 0.0
    measured: list[str] = field(default_factory=list)
    asked: list[tuple[str, tuple[str, ...]]] = field(default_factory=list)

    def build_exact(self, steps):
        return tuple(step for step in steps if step.name not in self.impossible)

    def layers(self, steps):
        operator = "MatMul" if UNFOLD in steps else self.operator
        tail = ".matrix" if UNFOLD in steps else ""
        names = [f"{name}{tail}" for name in self.errors]
        return [
            Layer(name, helper.make_node(operator, ["x", name], ["y"]), self.sizes.get(name, 5000)) for name in names
        ]

    def weights(self, steps):
        return [layer for layer in self.layers(steps) if layer.size >= 512]

    def operators(self, steps):
        return self.found

    def tables(self, steps):
        return list(self.embedding)

    def unfoldable(self, steps):
        return list(self.convolutions)

    def sensitivity(self, steps, change, names, seconds):
        self.asked.append((change.name, tuple(names)))
        self.time += 1
        return [(name, self.errors[name.removesuffix(".matrix")]) for name in names][: self.reached]

    def candidate(self, recipe, limits, progress):
        progress("measuring")
        self.measured.append(recipe.name)
        self.time += self.seconds
        if self.broken in recipe.name:
            return Candidate(recipe=recipe.name, error="it crashed", verdict="it crashed")
        integers = {
            step.name: step for step in recipe.steps if step.name in ("int8-matmul", "static-int8", "int8-lstm")
        }
        error, share = 0.0, 0.0
        parts = [part.split("[")[0] for part in recipe.name.split("+")]
        for step in integers.values():
            chosen = step.params.get("only", list(self.errors))
            factor = next((self.factors[part] for part in parts if part in self.factors), 1.0)
            error += factor * sum(self.errors[name.removesuffix(".matrix")] for name in chosen)
            share += len(chosen) / len(self.errors)
        size, lost = self._stored(recipe)
        speed = next((ratio for label, ratio in self.speeds.items() if recipe.name.split("+")[0] == label), 1.0)
        return figures(recipe.name, size, speed * (1 - 0.5 * min(share, 1)), error + lost)

    def _stored(self, recipe):
        """Bytes, and the error of the weights that are stored in few bits."""
        steps = {step.name: step for step in recipe.steps if step.name in SIZES}
        part = next((step for step in recipe.steps if step.name == "int8-weights" and "only" in step.params), None)
        name = next((name for name in SIZES if name in steps), None)
        if part is not None:
            chosen = part.params["only"]
            rest = SIZES["int8-blocks" if "int8-blocks" in steps else "fp16-weights"]
            size = rest - (rest - SIZES["int8-weights"]) * len(chosen) / len(self.errors)
            return size, sum(self.stored["int8-weights"] * self.errors[name] for name in chosen)
        tables = 20 * ("int4-embedding" in recipe.name)
        return SIZES.get(name, 1000) - tables, self.stored.get(name, 0) * sum(self.errors.values())


def figures(recipe, size, ratio, error):
    passed = error <= ALLOWED
    entry = GateEntry(gate=str(GATE), value=1 - error, standard_error=0.0, samples=32, passed=passed)
    return Candidate(
        recipe=recipe,
        size=round(size),
        size_ratio=size / 1000,
        latency=Latency(ratio=ratio, low=ratio - 0.01, high=ratio + 0.01, source_ms=1, candidate_ms=ratio, rounds=9),
        cost_ratio=ratio,
        gates=[entry],
        holds=passed,
        verdict="holds" if passed else "misses",
    )


def small(**changes):
    """Three layers that bear everything."""
    return dict.fromkeys("abc", 0.001) | changes


def search(bench, objective="size", budget=10_000.0, folder=None, thorough=True, facts=None, fresh=False):
    """What was found; nothing is measured twice."""
    before = len(bench.measured)
    journal = Journal(folder, facts or {"source": "one"}, fresh)
    clock = Clock(budget, lambda: bench.time)
    found = Search(bench, [GATE], objective, clock, journal, lambda words, done, total: None, thorough).run()
    assert len(set(bench.measured[before:])) == len(bench.measured) - before
    assert [candidate.recipe for candidate in found.candidates] == list(found.recipes)
    return found


def held(found):
    return [candidate.recipe for candidate in found.candidates if candidate.holds]


def chosen_layers(found, recipe, step="int8-matmul"):
    """The layers that a recipe changes by a step."""
    return next(entry.params["only"] for entry in found.recipes[recipe].steps if entry.name == step)
