"""Rounds over memory sizes: their order, what a block is, sizes that do not do, and Ctrl-C."""

import pytest

from sampan.contract.errors import InvalidInputError
from sampan.costs.cost import invocation_cost
from sampan.costs.prices import read_prices
from sampan.emulation.instance import InstanceError
from sampan.tuning.figures import Figures, figures_of
from sampan.tuning.sizes import SIZES, beyond_here, parse_sizes, sizes_to_try
from sampan.tuning.trial import Plan, Trials, try_sizes
from tuned import FakeFunction

PLAN = Plan(rounds=3, calls=4, busy_ms=0)
PRICES = read_prices("us-east-1")


def tried(function: FakeFunction, *sizes: int, plan: Plan = PLAN) -> Trials:
    return try_sizes(function, dict.fromkeys(sizes, ""), [{}, {"second": 1}], plan)


def figures(trials: Trials, cold_share: float = 0.01) -> dict[int, Figures]:
    return {trial.memory: figures_of(trial, PRICES, "x86_64", cold_share) for trial in trials.measured}


class TestSizes:
    def test_text(self) -> None:
        assert parse_sizes("1024, 512,1024") == (512, 1024)

    @pytest.mark.parametrize("text", ["", "a", "512,", "-512", "512.5", "5１2"])
    def test_no_number(self, text: str) -> None:
        with pytest.raises(InvalidInputError, match="is no memory size; give whole MB"):
            parse_sizes(text)

    @pytest.mark.parametrize("text", ["127", "512,10241"])
    def test_what_lambda_does_not_have(self, text: str) -> None:
        with pytest.raises(InvalidInputError, match=r"Lambda has no \d+ MB, but 128 to 10240"):
            parse_sizes(text)

    def test_the_functions_own_is_among_the_usual_ones(self) -> None:
        assert sizes_to_try(640) == (256, 512, 640, *SIZES[2:])
        assert sizes_to_try(640, (128, 256)) == (128, 256)

    def test_what_a_machine_has_too_few_cores_for(self) -> None:
        assert beyond_here(3538, 2) == ""
        assert beyond_here(3539, 2) == "Lambda gives 2.00 vCPUs for 3539 MB, this machine has 2"
        assert "3.00 vCPUs" in beyond_here(5307, 2)


class TestRounds:
    def test_sizes_take_turns_and_every_round_is_a_fresh_instance(self) -> None:
        function = FakeFunction()
        trials = tried(function, 512, 1024, 1769)
        assert function.starts == [1769, 512, 1024, 1769, 1769, 1024, 512, 512, 1024, 1769]  # the first fills the cache
        assert function.running == 0
        assert [len(trial.rounds) for trial in trials.sizes] == [3, 3, 3]
        assert {len(one.warm) for trial in trials.sizes for one in trial.rounds} == {4}
        assert trials.notes == ("one thing is not held",)

    def test_a_block_lasts_over_several_periods_of_the_share(self) -> None:
        trials = tried(FakeFunction(work=2), 1769, plan=Plan(rounds=1, calls=4, busy_ms=100))
        assert len(trials.sizes[0].rounds[0].warm) == 50
        endless = tried(FakeFunction(work=0), 1769, plan=Plan(rounds=1, calls=4, busy_ms=100))
        assert len(endless.sizes[0].rounds[0].warm) == 500

    def test_a_noisy_round_changes_no_figure(self) -> None:
        sizes = (512, 1024, 1769)
        noise = dict.fromkeys(range(4, 7), 300.0)  # the whole second round
        assert figures(tried(FakeFunction(noise=noise), *sizes))[1769].p95 == 20
        quiet, noisy = (figures(tried(FakeFunction(noise=each), *sizes)) for each in ({}, noise))
        assert {memory: one.cost for memory, one in noisy.items()} == {
            memory: one.cost for memory, one in quiet.items()
        }

    def test_progress_goes_from_nothing_to_all(self) -> None:
        seen: list[tuple[str, int, int]] = []
        try_sizes(FakeFunction(), {512: "", 1024: ""}, [{}], PLAN, watch=lambda *each: seen.append(each))
        assert [done for _, done, _ in seen] == [0, 0, 1, 2, 3, 4, 5]
        assert {total for _, _, total in seen} == {6}
        assert seen[-1][0] == "round 3 of 3, 1024 MB"


class TestFigures:
    def test_latency_is_the_shares_and_threads_help_beyond_one_vcpu(self) -> None:
        found = figures(tried(FakeFunction(parallel=2), 442, 1769, 3538))
        assert [one.p50 for one in found.values()] == pytest.approx([80.05, 20, 10], abs=0.01)
        assert [one.cold for one in found.values()] == pytest.approx([2081.2, 520, 260], abs=0.1)
        assert [one.init for one in found.values()] == pytest.approx([2001.1, 500, 250], abs=0.1)
        assert {one.peak for one in found.values()} == {200}

    def test_cost_is_what_lambda_bills_with_a_share_of_cold_starts(self) -> None:
        function = FakeFunction(work=19.2)
        cold = invocation_cost(PRICES, 1769, 19.2, 500)
        warm = invocation_cost(PRICES, 1769, 19.2)
        trials = tried(function, 1769)
        assert figures(trials, 0)[1769].cost == pytest.approx(warm)
        assert figures(trials, 0.25)[1769].cost == pytest.approx(0.75 * warm + 0.25 * cold)
        assert figures(trials, 1)[1769].million == pytest.approx(cold * 1e6)
        assert figures(trials)[1769].billed == 20


class TestSizesThatDoNotDo:
    def test_out_of_memory_is_measured_and_not_tried_again(self) -> None:
        function = FakeFunction(held=300)
        trials = tried(function, 256, 512)
        assert [(trial.memory, trial.state) for trial in trials.sizes] == [(256, "out of memory"), (512, "measured")]
        assert function.starts.count(256) == 1
        assert [trial.memory for trial in trials.measured] == [512]

    def test_without_a_container_a_process_that_holds_all_is_out_of_memory(self) -> None:
        trials = tried(FakeFunction(held=300, level="rie"), 256, 512)
        assert [trial.state for trial in trials.sizes] == ["out of memory", "measured"]

    def test_a_size_that_is_too_slow(self) -> None:
        slow, fast = tried(FakeFunction(work=4000, held=100), 128, 1769).sizes
        assert (slow.state, slow.reason) == ("timed out", "it timed out after 29.00 seconds")
        assert (fast.state, fast.reason) == ("measured", "")

    def test_what_is_not_measured_is_not_started(self) -> None:
        function = FakeFunction()
        trials = try_sizes(function, {1769: "", 5307: "too few cores"}, [{}], PLAN)
        assert set(function.starts) == {1769}
        assert (trials.sizes[1].state, trials.sizes[1].reason) == ("not measured", "too few cores")

    def test_another_failure_is_an_error_and_nothing_is_left(self) -> None:
        function = FakeFunction()
        broken = {"answer": {"statusCode": 500, "body": "no such file"}}
        with pytest.raises(InstanceError, match="a golden sample was answered with status 500: no such file"):
            try_sizes(function, {512: ""}, [broken], PLAN)
        assert function.running == 0

    def test_no_samples(self) -> None:
        with pytest.raises(InstanceError, match="there are no golden samples to ask"):
            try_sizes(FakeFunction(), {512: ""}, [], PLAN)


def test_ctrl_c_keeps_whole_rounds_and_leaves_no_instance_even_where_it_interrupts_the_stop() -> None:
    function = FakeFunction(raises={4: KeyboardInterrupt()})
    trials = tried(function, 512, 1024)
    assert trials.stopped
    assert function.running == 0
    assert function.starts == [1024, 512, 1024, 1024, 512]
    assert [len(trial.rounds) for trial in trials.sizes] == [1, 2]
