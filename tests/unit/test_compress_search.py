"""The search over a bench of simple rules: what is tried, in which order, what is kept, and how it goes on."""

from dataclasses import dataclass, field

import numpy as np
import pytest
from onnx import helper

from models import build, classifier, save
from sampan.compress.candidate import Effort
from sampan.compress.engine import compress
from sampan.compress.graph import Layer
from sampan.compress.journal import Journal
from sampan.compress.recipes import UNFOLD
from sampan.compress.report import Candidate
from sampan.compress.search import Clock, Search
from sampan.compress.tasks import Latency
from sampan.contract.manifest import GateEntry
from sampan.contract.metrics import parse_gate
from sampan.store import open_store
from sampan.store.add import add_model

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


# The order of trying


def test_weights_come_first_then_each_lever_and_what_holds_stays():
    bench = Bench(small())
    found = search(bench)
    assert bench.measured == [
        "exact",
        "exact+int8-weights",
        "exact+int4-weights",
        "exact+dynamic-int8-smooth+int8-weights",
    ]
    assert found.stopped == "every lever was tried"


def test_for_latency_what_is_computed_comes_before_what_is_stored():
    bench = Bench(small(), embedding=(2_000_000,))
    search(bench, "latency")
    assert bench.measured == [
        "exact",
        "exact+int8-weights",
        "exact+dynamic-int8-smooth+int8-weights",
        "exact+int4-embedding+dynamic-int8-smooth+int8-weights",
    ]


def test_a_faster_mix_of_the_same_size_is_kept():
    """Weights of four bits miss, so size is that of int8; integer products are as small, and faster."""
    found = search(Bench(small(), stored={"int4-weights": 99}))
    assert held(found)[-1] == "exact+dynamic-int8-smooth+int8-weights"
    assert found.recipes[held(found)[-1]].layers == dict.fromkeys("abc", "int8-matmul")


def test_for_cost_only_what_costs_less_is_kept():
    bench = Bench(small(), operator="Conv", found={"LSTM": 1}, embedding=(2_000_000,))
    search(bench, "cost")
    assert bench.measured[2:] == [
        "exact+static-int8-minmax+int8-weights",
        "exact+static-int8-minmax+int8-lstm+int8-weights",
        "exact+int4-embedding+static-int8-minmax+int8-weights",
    ]


def test_the_first_variant_that_holds_is_kept():
    bench = Bench(small(), factors={"dynamic-int8-smooth": 9, "dynamic-int8": 1})
    search(bench, "latency")
    assert bench.measured[2:] == ["exact+dynamic-int8-smooth+int8-weights", "exact+dynamic-int8+int8-weights"]
    assert bench.asked == []


@pytest.mark.parametrize("operator", ["Conv", "Gemm", "LSTM"])
def test_levers_are_those_of_the_operators(operator):
    bench = Bench(small(), operator=operator, found={"LSTM": 1} if operator == "LSTM" else {})
    search(bench, "latency")
    lever = {"Conv": "static-int8-minmax", "Gemm": "dynamic-int8-smooth", "LSTM": "int8-lstm"}[operator]
    assert bench.measured[2:] == [f"exact+{lever}+int8-weights"]


def test_a_model_without_layers_is_rewritten_and_no_more():
    bench = Bench({})
    search(bench, "latency")
    assert bench.measured == ["exact", "exact+int8-weights"]


def test_a_broken_lever_costs_its_candidates_only():
    bench = Bench(small(), operator="Conv", broken="minmax")
    found = search(bench, "latency")
    assert held(found)[-1] == "exact+static-int8-smooth-equal+int8-weights"
    assert [candidate.error for candidate in found.candidates].count("it crashed") == 1


# The exact rewriting


def test_the_faster_rewriting_is_the_base():
    norms = {"LayerNormalization": 1}
    bench = Bench(small(), found=norms, speeds={"exact": 1.0, "exact-unskipped": 0.9})
    search(bench)
    assert bench.measured[:3] == ["exact", "exact-unskipped", "exact-unskipped+int8-weights"]
    bench = Bench(small(), found=norms, speeds={"exact": 0.9, "exact-unskipped": 1.0})
    search(bench)
    assert bench.measured[:3] == ["exact", "exact-unskipped", "exact+int8-weights"]


def test_rewriting_that_fails_its_check_is_left_out():
    found = search(Bench(small(), impossible=("attention", "fold")))
    steps = [step.name for step in found.recipes["exact"].steps]
    assert "lookup" in steps
    assert not {"attention", "fold"} & set(steps)


def test_a_lever_whose_rewriting_fails_is_left_out():
    possible, not_possible = (
        Bench(small(), operator="Conv", convolutions=("a",), impossible=names) for names in ((), ("unfold",))
    )
    search(possible, "latency")
    search(not_possible, "latency")
    assert possible.measured[2] == "exact-smooth0.75-unfolded+dynamic-int8+int8-weights"
    assert not any("unfolded" in name for name in not_possible.measured)
    assert not_possible.measured[2:] == ["exact+static-int8-minmax+int8-weights"]


# Layers that bear a lever


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_bisection_finds_as_many_layers_as_the_gate_allows(count):
    """The least sensitive first: `count` of five layers use up what is allowed, one more is too many."""
    errors = {name: ALLOWED / count * (1 - rank / 100) for rank, name in enumerate("edcba")}
    found = search(Bench(errors), "latency")
    best = held(found)[-1]
    assert best == f"exact+dynamic-int8-smooth[{count} of 5]+int8-weights"
    assert sorted(chosen_layers(found, best)) == sorted("abcde"[:count])


def test_many_layers_take_few_candidates():
    """Thirteen of twenty, which four candidates at most must find."""
    errors = {f"layer{rank:02}": ALLOWED / 13.5 for rank in range(20)}
    bench = Bench(errors)
    found = search(bench, "latency")
    assert held(found)[-1] == "exact+dynamic-int8-smooth[13 of 20]+int8-weights"
    assert sum("of 20" in name for name in bench.measured) <= 4


def test_no_layer_bears_it():
    bench = Bench(dict.fromkeys("abcd", 1.0))
    assert held(search(bench, "latency")) == ["exact", "exact+int8-weights"]
    assert bench.measured[-1] == "exact+dynamic-int8-smooth[1 of 4]+int8-weights"


def test_the_variant_that_came_nearest_is_the_one_for_some_layers():
    factors = {"dynamic-int8-smooth": 9, "dynamic-int8": 3, "dynamic-int8-less-smooth": 5}
    bench = Bench(dict.fromkeys("abcd", 0.004), factors=factors)
    bench.factors["dynamic-int8-smooth-full"] = 8
    found = search(bench, "latency")
    assert bench.asked == [("int8-matmul", tuple("abcd"))]
    assert any("dynamic-int8[" in name for name in bench.measured)
    assert {entry.layer: entry.error for entry in found.sensitivity} == dict.fromkeys("abcd", 0.004)


def test_of_equal_errors_the_layer_that_saves_most_comes_first():
    """The smallest is no weight worth storing in fewer bits, and a layer all the same."""
    bench = Bench(dict.fromkeys("abcd", 0.004), sizes={"a": 100, "c": 9000, "d": 7000})
    found = search(bench, "latency")
    assert chosen_layers(found, held(found)[-1]) == ["c", "d"]


def test_layers_that_sensitivity_did_not_reach_stay():
    bench = Bench(dict.fromkeys("abcde", 0.004), reached=3)
    found = search(bench, "latency")
    layers = [chosen_layers(found, name) for name in bench.measured if "of 5" in name]
    assert layers
    assert all(set(names) <= set("abc") for names in layers)


def test_a_search_that_is_not_thorough_looks_at_no_layer():
    bench = Bench(dict.fromkeys("abcd", 0.004), found={"LayerNormalization": 1})
    search(bench, "latency", thorough=False)
    assert bench.asked == []
    assert bench.measured[0] == "exact-unskipped+int8-weights"
    assert not any("of 4" in name for name in bench.measured)


def test_each_rewriting_has_sensitivities_of_its_own():
    """Unfolded convolutions are other layers than those of the products beside them."""
    bench = Bench(dict.fromkeys("abcd", 0.02), convolutions=("a",), factors={"dynamic-int8-smooth": 9})
    bench.factors |= {"dynamic-int8-less-smooth": 9, "dynamic-int8-smooth-full": 9}
    search(bench, "latency")
    assert bench.asked == [
        ("int8-matmul", ("a.matrix", "b.matrix", "c.matrix", "d.matrix")),
        ("int8-matmul", ("a", "b", "c", "d")),
    ]


# Weights that miss


def test_weights_that_miss_get_a_scale_a_block_where_they_do_not_bear_a_scale_a_channel():
    bench = Bench(small(c=0.2), stored={"int8-weights": 1, "int4-weights": 99})
    found = search(bench)
    assert bench.measured[:4] == [
        "exact",
        "exact+int8-weights",
        "exact+int8-blocks",
        "exact+int8-weights[2 of 3]+int8-blocks",
    ]
    assert chosen_layers(found, bench.measured[3], "int8-weights") == ["a", "b"]
    assert bench.asked[0] == ("int8-weights", ("a", "b", "c"))


def test_weights_that_miss_by_blocks_too_are_stored_in_halves():
    bench = Bench(small(c=0.2), stored={"int8-weights": 1, "int8-blocks": 1, "int4-weights": 99})
    found = search(bench)
    assert bench.measured[2:5] == [
        "exact+int8-blocks",
        "exact+fp16-weights",
        "exact+int8-weights[2 of 3]+fp16-weights",
    ]
    assert chosen_layers(found, bench.measured[4], "int8-weights") == ["a", "b"]


def test_weights_that_bear_nothing_stay_and_levers_are_tried_all_the_same():
    bench = Bench(small(), stored=dict.fromkeys(SIZES, 99))
    assert held(search(bench)) == ["exact", "exact+dynamic-int8-smooth"]


def test_a_lever_is_tried_on_halves_where_int8_misses():
    bench = Bench(dict.fromkeys("abc", 0.003), stored={"int8-weights": 99, "int8-blocks": 99})
    found = search(bench, "latency")
    assert held(found)[-1] == "exact+dynamic-int8-smooth+fp16-weights"


# Time


def test_time_over_says_what_was_not_tried():
    bench = Bench(small(), operator="Conv", embedding=(2_000_000,), seconds=10)
    found = search(bench, budget=35)
    assert bench.measured == ["exact", "exact+int8-weights", "exact+int4-embedding+int8-weights"]
    assert found.stopped == "the 35 seconds were over; not tried to the end: int4-weights, static-int8"


def test_two_candidates_are_measured_however_little_time_there_is():
    bench = Bench(small())
    found = search(bench, budget=1)
    assert bench.measured == ["exact", "exact+int8-weights"]
    assert found.stopped.startswith("the 1 seconds were over; not tried to the end: ")


def test_time_over_among_the_weights_is_said():
    bench = Bench(small(c=0.2), stored={"int8-weights": 1})
    assert search(bench, budget=25).stopped.endswith("not tried to the end: int4-weights, dynamic-int8, weights")


# Going on


def test_a_search_goes_on_where_it_stopped(tmp_path):
    """Cut off anywhere, the second half finds what one search finds, and measures the rest only."""
    errors = dict.fromkeys("abcd", 0.004)
    whole = search(Bench(errors), folder=tmp_path / "whole")
    for count in range(2, len(whole.candidates)):
        folder = tmp_path / str(count)
        first, second = Bench(errors), Bench(errors)
        search(first, budget=10 * count + 1, folder=folder)
        assert 2 <= len(first.measured) <= count
        again = search(second, folder=folder)
        assert again == whole
        assert first.measured + second.measured == list(whole.recipes)


def test_sensitivities_are_measured_once(tmp_path):
    errors = dict.fromkeys("abcd", 0.004)
    first, second = Bench(errors), Bench(errors)
    search(first, "latency", folder=tmp_path)
    search(second, "latency", folder=tmp_path)
    assert first.asked
    assert (second.measured, second.asked) == ([], [])


@pytest.mark.parametrize("cut", [1, 40, 300])
def test_a_line_that_was_cut_off_is_measured_again(cut, tmp_path):
    """And what is measured after it is found by a third search."""
    first, second, third = Bench(small()), Bench(small()), Bench(small())
    whole = search(first, folder=tmp_path)
    journal = next(tmp_path.glob("search-*.jsonl"))
    journal.write_bytes(journal.read_bytes()[:-cut])
    assert search(second, folder=tmp_path) == whole
    assert second.measured == first.measured[-1:]
    assert search(third, folder=tmp_path) == whole
    assert third.measured == []


def test_other_steps_under_one_name_are_measured_anew(tmp_path):
    search(Bench(small()), folder=tmp_path)
    other = Bench(small(), impossible=("attention",))
    search(other, folder=tmp_path)
    assert other.measured[:2] == ["exact", "exact+int8-weights"]


def test_other_facts_are_another_search(tmp_path):
    search(Bench(small()), folder=tmp_path)
    other = Bench(small())
    search(other, folder=tmp_path, facts={"source": "two"})
    assert len(other.measured) == 4
    assert len(list(tmp_path.glob("search-*.jsonl"))) == 2


def test_a_fresh_search_measures_anew(tmp_path):
    search(Bench(small()), folder=tmp_path)
    again = Bench(small())
    search(again, folder=tmp_path, fresh=True)
    assert len(again.measured) == 4


def test_the_same_figures_make_the_same_search():
    errors = {name: 0.002 + 0.001 * (index % 3) for index, name in enumerate("abcdefgh")}
    first, second = Bench(errors), Bench(errors)
    assert search(first) == search(second)
    assert (first.measured, first.asked) == (second.measured, second.asked)


# From end to end


def values(*shape):
    return np.random.default_rng(3).normal(size=shape).astype(np.float32)


def convolutions():
    """Conv, hard swish as a chain, Conv, mean: FP32 [n, 16, 8, 8] to [n, 32]."""
    nodes = [
        helper.make_node("Conv", ["x", "k1"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Add", ["c", "three"], ["s"]),
        helper.make_node("Clip", ["s", "zero", "six"], ["g"]),
        helper.make_node("Mul", ["c", "g"], ["m"]),
        helper.make_node("Div", ["m", "six"], ["h"]),
        helper.make_node("Conv", ["h", "k2"], ["d"]),
        helper.make_node("GlobalAveragePool", ["d"], ["p"]),
        helper.make_node("Flatten", ["p"], ["y"]),
    ]
    numbers = {name: np.float32(value) for name, value in (("zero", 0), ("three", 3), ("six", 6))}
    table = {"k1": values(64, 16, 3, 3) / 12, "k2": values(32, 64, 1, 1) / 8, **numbers}
    return build(nodes, [("x", "FP32", ("n", 16, 8, 8))], [("y", "FP32", ("n", 32))], table)


def embedding():
    """Token rows looked up, then a MatMul: INT64 [n] to FP32 [n, 64]."""
    nodes = [helper.make_node("Gather", ["table", "ids"], ["e"]), helper.make_node("MatMul", ["e", "w"], ["y"])]
    table = {"table": values(1100, 64), "w": values(64, 64) / 8}
    return build(nodes, [("ids", "INT64", ("n",))], [("y", "FP32", ("n", 64))], table)


REAL = {"classifier": (classifier, 60.0), "convolutions": (convolutions, 2.0), "embedding": (embedding, 2.0)}


@pytest.mark.parametrize("case", REAL)
def test_a_real_model_gets_smaller_and_holds_its_gate(case, tmp_path):
    """Two candidates at least whatever the machine does; the first model to the end."""
    make, budget = REAL[case]
    store = open_store(tmp_path / "store")
    add_model(store, save(make(), tmp_path / "model.onnx"), name="tiny")
    effort = Effort(seconds=0.01, loads=1, budget=budget)
    outcome = compress(store, "tiny", gate=["cosine>=0.99"], effort=effort, work=tmp_path / "work")
    report, manifest = outcome.report, outcome.version.manifest
    assert [entry.passed for entry in manifest.gates] == [True]
    assert manifest.size < 0.4 * report.source.size
    assert report.candidates[0].recipe == "exact"
    assert report.candidates[1].recipe == "exact+int8-weights"
    assert list((tmp_path / "work").iterdir()) == []
    if case == "classifier":
        assert report.stopped == "every lever was tried"
        assert {"exact+int4-weights", "exact+dynamic-int8-smooth+int8-weights"} <= {c.recipe for c in report.candidates}
    if case == "convolutions":
        assert report.candidates[0].operators["HardSigmoid"] == 1
    if case == "embedding":
        assert "int8-embedding" in [step["name"] for step in manifest.recipe["passes"]]
