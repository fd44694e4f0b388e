"""The search as a whole: when it stops, how it goes on where it stopped, and real models from end to end."""

import numpy as np
import pytest
from onnx import helper

from models import build, classifier, save
from rewriting import values
from sampan.compress.candidate import Effort
from sampan.compress.engine import compress
from sampan.store import open_store
from sampan.store.add import add_model
from searching import Bench, search, small

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
