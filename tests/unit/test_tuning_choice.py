"""Which size is taken: cheapest under an objective, runner-up, knee; and the sentences about them."""

import pytest

from sampan.tuning.choice import Objective, ObjectiveError, choose, knee_of
from sampan.tuning.figures import Figures


def size(memory: int, cost: float, p95: float, cold: float = 1000, rounds: tuple[float, ...] = ()) -> Figures:
    costs = tuple(each * 1e-6 for each in rounds or (cost,))
    return Figures(memory, cold, cold / 2, p95, p95, p95, 100, costs)


SMALL, MIDDLE, LARGE = size(512, 1.0, 80, 3000), size(1024, 1.1, 40, 1500), size(1769, 1.3, 38, 900)
SIZES = (SMALL, MIDDLE, LARGE)


def test_without_an_objective_the_cheapest_and_the_knee() -> None:
    choice = choose(SIZES, Objective())
    assert (choice.best, choice.runner_up, choice.knee) == (SMALL, MIDDLE, MIDDLE)
    assert choice.reason == (
        "512 MB: the cheapest of 3 sizes, $1.00 a million calls, p95 80 ms; "
        "runner-up 1024 MB costs 10.0% more (dearer in 1 of 1 rounds) at p95 40 ms; "
        "the knee is at 1024 MB: p95 40 instead of 80 ms for 10.0% more"
    )


@pytest.mark.parametrize(
    ("objective", "best", "runner_up"),
    [
        (Objective(p95=50), MIDDLE, LARGE),
        (Objective(p95=40), MIDDLE, LARGE),
        (Objective(p95=39), LARGE, None),
        (Objective(cold=1000), LARGE, None),
        (Objective(p95=100, cold=2000), MIDDLE, LARGE),
    ],
)
def test_the_cheapest_that_holds(objective: Objective, best: Figures, runner_up: Figures | None) -> None:
    choice = choose(SIZES, objective)
    assert (choice.best, choice.runner_up) == (best, runner_up)
    assert objective.words in choice.reason
    assert ("no other size holds it" in choice.reason) == (runner_up is None)


def test_nothing_holds_and_the_nearest_is_said() -> None:
    with pytest.raises(ObjectiveError) as raised:
        choose(SIZES, Objective(p95=20, cold=1200), "5307 MB were not measured")
    assert str(raised.value) == (
        "no measured size holds p95 ≤ 20 ms and cold start ≤ 1200 ms; nearest are 1769 MB with p95 38 ms and "
        "cold start 900 ms; 5307 MB were not measured"
    )


def test_a_difference_within_the_noise_is_seen() -> None:
    one, two = size(512, 0, 80, rounds=(1.0, 1.2, 1.1)), size(1024, 0, 40, rounds=(1.1, 1.1, 1.15))
    assert "costs 0.0% more (dearer in 2 of 3 rounds)" in choose((one, two), Objective()).reason


def test_one_size_alone() -> None:
    choice = choose((LARGE,), Objective())
    assert (choice.best, choice.runner_up, choice.knee) == (LARGE, None, LARGE)
    assert "runner-up" not in choice.reason


def test_the_knee_of_sizes_that_are_all_alike() -> None:
    assert knee_of((size(512, 1, 10), size(1024, 1, 10))).memory == 512
