"""The circuit breaker: when it opens, for how long, and who may try again."""

import threading

import pytest

from sampan.serving.remote.breaker import FAILURES, LONGEST, SHORTEST, Breaker


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> Breaker:
    return Breaker(clock, lambda: 0.0)


def fail(breaker: Breaker, times: int = FAILURES) -> None:
    for _ in range(times):
        assert breaker.enter() == 0
        breaker.failed("it is down")


def test_it_opens_after_failures_in_a_row(breaker: Breaker):
    fail(breaker, FAILURES - 1)
    assert not breaker.open
    fail(breaker, 1)
    assert (breaker.open, breaker.enter(), breaker.reason) == (True, SHORTEST, "it is down")


def test_a_success_between_starts_the_count_anew(breaker: Breaker):
    fail(breaker, FAILURES - 1)
    breaker.succeeded()
    fail(breaker, FAILURES - 1)
    assert not breaker.open


def test_one_request_tries_when_the_time_is_over(breaker: Breaker, clock: Clock):
    fail(breaker)
    clock.now = SHORTEST - 0.5
    assert breaker.enter() == 0.5
    clock.now = SHORTEST
    assert not breaker.open
    assert breaker.enter() == 0
    assert breaker.enter() > 0
    assert breaker.open
    breaker.succeeded()
    assert (breaker.open, breaker.enter(), breaker.enter(), breaker.reason) == (False, 0, 0, "")


def test_each_try_that_fails_doubles_the_time_up_to_a_minute(breaker: Breaker, clock: Clock):
    fail(breaker)
    opened = []
    for _ in range(6):
        opened.append(breaker.enter())
        clock.now += opened[-1]
        fail(breaker, 1)
    assert opened == [5, 10, 20, 40, 60, 60]
    assert opened[-1] == LONGEST
    clock.now += LONGEST
    assert breaker.enter() == 0
    breaker.succeeded()
    fail(breaker)
    assert breaker.enter() == SHORTEST


def test_jitter_shortens_the_time_by_a_quarter_at_most(clock: Clock):
    breaker = Breaker(clock, lambda: 1.0)
    fail(breaker)
    assert breaker.enter() == SHORTEST * 3 / 4


def test_requests_on_their_way_do_not_lengthen_the_time(breaker: Breaker, clock: Clock):
    fail(breaker)
    clock.now = 2
    breaker.failed("late")
    assert (breaker.enter(), breaker.reason) == (SHORTEST - 2, "it is down")


def test_of_many_threads_one_tries(breaker: Breaker, clock: Clock):
    fail(breaker)
    clock.now = SHORTEST
    together, waits = threading.Barrier(16), []

    def enter() -> None:
        together.wait(10)
        waits.append(breaker.enter())

    threads = [threading.Thread(target=enter) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert sorted(waits)[:2] == [0.0, 1.0]
    assert len(waits) == 16
