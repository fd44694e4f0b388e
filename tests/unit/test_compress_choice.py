"""Which candidate wins, and what is said when none does."""

import numpy as np
import pytest

from sampan.compress import choice, gates, measure
from sampan.compress.recipes import choose
from sampan.compress.report import Candidate
from sampan.compress.tasks import Latency
from sampan.contract.errors import GateError, InvalidInputError
from sampan.contract.manifest import GateEntry


def candidate(name, size, ratio=1.0, spread=0.01, memory=1.0, value=0.999, passes=()):
    entry = GateEntry(gate="cosine>=0.99", value=value, standard_error=1e-4, samples=32, passed=value >= 0.99)
    times = {"source_ms": 1.0, "candidate_ms": ratio, "rounds": 9}
    return Candidate(
        recipe=name,
        passes=list(passes),
        size=int(size * 1000),
        size_ratio=size,
        latency=Latency(ratio=ratio, low=ratio - spread, high=ratio + spread, **times),
        cost_ratio=ratio * memory,
        gates=[entry],
        holds=entry.passed,
        verdict="holds" if entry.passed else "misses",
    )


@pytest.mark.parametrize(("objective", "winner"), [("size", "small"), ("latency", "fast"), ("cost", "lean")])
def test_the_objective_decides(objective, winner):
    candidates = [
        candidate("small", 0.25, ratio=1.0),
        candidate("fast", 0.5, ratio=0.5, memory=1.2),
        candidate("lean", 0.6, ratio=0.6, memory=0.5),
        candidate("wrong", 0.1, ratio=0.1, value=0.9),
    ]
    assert choice.best(candidates, objective).recipe == winner


def test_of_equal_sizes_the_surely_faster_wins():
    assert choice.best([candidate("a", 0.250), candidate("b", 0.253, ratio=0.4)], "size").recipe == "b"


def test_of_equal_sizes_noise_does_not_decide():
    assert choice.best([candidate("a", 0.250), candidate("b", 0.251, ratio=0.97)], "size").recipe == "a"


@pytest.mark.parametrize(
    ("objective", "only"),
    [
        ("size", candidate("same", 0.99)),
        ("latency", candidate("unsure", 0.5, ratio=0.99, spread=0.02)),
        ("cost", candidate("unsure", 0.5, ratio=0.99, spread=0.02)),
    ],
)
def test_no_winner_that_does_not_beat_the_source(objective, only):
    assert choice.best([only], objective) is None
    assert "none beats the source" in choice.why([only], None, objective)


def test_the_nearest_is_named_with_its_value():
    words = choice.why([candidate("far", 0.2, value=0.5), candidate("near", 0.3, value=0.98)], None, "size")
    assert "nearest came near where cosine>=0.99 is 0.98" in words


def test_nothing_to_store_is_said():
    only = candidate("int8-weights", 1.0, passes=[{"name": "int8-weights", "stored": 0}])
    assert "no float weights" in choice.why([only], None, "size")


def test_errors_are_told_when_there_is_nothing_else():
    failed = Candidate(recipe="optimize", error="pass optimize crashed", verdict="pass optimize crashed")
    assert "pass optimize crashed" in choice.why([failed], None, "size")


def test_latency_is_the_median_ratio_with_its_interval():
    times = np.array([[2.0, 1.0]] * 9 + [[2.0, 50.0]])
    found = measure.summary(times, seed=0)
    assert (found.ratio, found.low, found.rounds) == (0.5, 0.5, 10)
    assert found == measure.summary(times, seed=0)


def entry(value, error, samples):
    return GateEntry(gate="cosine>=0.99", value=value, standard_error=error, samples=samples, passed=True)


def test_few_samples_are_doubted():
    assert "measured on 3 samples only" in gates.doubts([entry(0.999, 1e-5, 3)])[0]


def test_a_value_within_two_standard_errors_is_doubted():
    assert "within chance" in gates.doubts([entry(0.992, 0.002, 100)])[0]
    assert gates.doubts([entry(0.999, 0.002, 100)]) == []


def test_a_source_that_answers_nan_cannot_be_compared():
    truth = [{"y": np.array([np.nan, 1], np.float32)}]
    with pytest.raises(GateError, match="source itself answers NaN"):
        gates.check_applicable(gates.limits(["cosine>=0.9"], Manifest), truth)


def test_a_metric_that_does_not_fit_the_outputs_is_refused():
    truth = [{"y": np.ones(3, np.float32)}]
    with pytest.raises(InvalidInputError, match="decoding needs an output"):
        gates.check_applicable(gates.limits(["edit_distance<=0"], Manifest), truth)


def test_an_output_that_does_not_exist_is_refused():
    with pytest.raises(InvalidInputError, match="names no output of tiny:1"):
        gates.limits(["cosine[z]>=0.9"], Manifest)


class Manifest:
    """What gates read of a manifest."""

    ref = "tiny:1"
    outputs = ()
    labels = None
    task = "text-classification"


def test_a_classifier_has_the_agreement_gate():
    assert gates.default(Manifest) == "top1_agreement>=0.99"


def test_recipes_are_chosen_by_name():
    assert [recipe.name for recipe in choose(["fp16-weights", "optimize"])] == ["fp16-weights", "optimize"]
    assert choose(["dynamic-int8-mixed"])[0].instead_of is None
    with pytest.raises(InvalidInputError, match="there is no recipe 'zip'; choose of optimize"):
        choose(["zip"])
