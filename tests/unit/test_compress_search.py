"""The search over a bench of simple rules: what is tried, in which order, and what is kept."""

import pytest

from searching import ALLOWED, SIZES, Bench, chosen_layers, held, search, small

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
