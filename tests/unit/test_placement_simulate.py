"""The simulations against closed forms, and what scaling and cold starts do."""

from dataclasses import replace

import numpy as np
import pytest

from sampan.placement.simulate import Environments, Run, Scaling, environments, erlang_c, fleet, queue
from sampan.placement.traffic import MONTH, Traffic, Window


def regular(count: int, gap: float) -> Window:
    return Window(np.arange(count) * gap, count * gap, MONTH / (count * gap))


def poisson(rate: float, count: int, seed: int = 7) -> Window:
    return Traffic(rate=rate).window(count, seed)


def exponential(window: Window, mean: float) -> np.ndarray:
    return np.random.default_rng(3).exponential(mean, len(window.times))


class TestClosedForms:
    @pytest.mark.parametrize(("servers", "load"), [(1, 0.7), (2, 1.4), (8, 6.0)])
    def test_an_m_m_c_queue_waits_as_erlang_says(self, servers: int, load: float):
        """P(wait) = C(c, a); mean wait = C(c, a) / (c/s − λ)."""
        window = poisson(load, 120_000)
        run = queue(window, exponential(window, 1.0), servers)
        waits = erlang_c(load, servers)
        assert (run.wait > 1e-9).mean() == pytest.approx(waits, rel=0.06)
        assert run.wait.mean() == pytest.approx(waits / (servers - load), rel=0.12)
        assert run.utilisation == pytest.approx(load / servers, rel=0.03)

    def test_erlang_c_at_a_value_of_the_tables(self):
        assert erlang_c(0.7, 1) == pytest.approx(0.7)
        assert erlang_c(2.0, 3) == pytest.approx(4 / 9)

    @pytest.mark.parametrize("shape", ["exponential", "constant", "uniform"])
    def test_an_m_g_infinity_system_has_rate_times_service_busy(self, shape: str):
        """Whatever the distribution of the service, as no environment is refused and none starts cold."""
        window = poisson(20.0, 40_000)
        random = np.random.default_rng(1)
        services = {
            "exponential": random.exponential(0.4, len(window.times)),
            "constant": np.full(len(window.times), 0.4),
            "uniform": random.uniform(0, 0.8, len(window.times)),
        }[shape]
        run = environments(window, services, Environments(cold=0.0, limit=10_000))
        assert run.busy / window.seconds == pytest.approx(20 * 0.4, rel=0.03)
        assert run.refused == 0
        assert run.latency == pytest.approx(services)

    def test_a_d_d_1_queue_never_waits_below_its_rate_and_grows_above_it(self):
        below = queue(regular(200, 1.0), np.full(200, 0.9), 1)
        assert below.wait.max() == 0
        assert below.utilisation == pytest.approx(0.9)
        above = queue(regular(200, 1.0), np.full(200, 1.5), 1)
        assert above.wait == pytest.approx(100 + np.arange(200) * 0.5)

    def test_the_scaled_fleet_with_a_fixed_size_is_the_queue(self):
        window = poisson(3.0, 5000)
        services = exponential(window, 0.5)
        rules = Scaling(places=2, startup=60, first=1, least=1, most=2, target=1e9)
        assert fleet(window, services, rules).wait == pytest.approx(queue(window, services, 2).wait)


class TestEnvironments:
    def test_one_that_is_kept_warm_serves_all_who_come_in_turn(self):
        run = environments(regular(50, 60.0), np.full(50, 1.0), Environments(cold=2.0, warm=600))
        assert run.cold.sum() == 0
        assert run.peak == 1

    def test_every_request_starts_cold_beyond_the_time_that_one_is_kept(self):
        run = environments(regular(50, 700.0), np.full(50, 1.0), Environments(cold=2.0, warm=600))
        assert run.cold.all()
        assert run.latency == pytest.approx(3.0)

    def test_the_share_of_cold_starts_is_that_of_long_gaps(self):
        """A Poisson process has gaps over 600 s with probability exp(−600 λ)."""
        window = poisson(1 / 700, 3000)
        run = environments(window, np.zeros(len(window.times)), Environments(cold=1.0, warm=600))
        assert run.cold.mean() == pytest.approx(np.exp(-600 / 700), abs=0.02)

    def test_who_comes_when_all_are_busy_at_the_limit_is_refused(self):
        window = Window(np.array([0.0, 0.1, 0.2, 5.0]), 100.0, 1.0)
        run = environments(window, np.full(4, 1.0), Environments(cold=0.0, limit=2))
        assert np.isinf(run.latency).tolist() == [False, False, True, False]
        assert run.refused == 0.25
        assert run.percentile(95) == np.inf

    def test_provisioned_ones_take_the_cold_starts_away(self):
        window = regular(50, 700.0)
        run = environments(window, np.full(50, 1.0), Environments(cold=2.0, provisioned=1))
        assert run.cold.sum() == 0
        assert run.paid == window.seconds


class TestFleet:
    def scaled(self, rate: float, **changes) -> Run:
        window = poisson(rate, 6000)
        rules = Scaling(places=1, startup=120, first=1, least=1, most=4, target=60, patience=60)
        return fleet(window, np.full(len(window.times), 0.5), replace(rules, **changes))

    def test_instances_come_with_the_load(self):
        run = self.scaled(3.0)
        count = run.paid / (6000 / 3.0)
        assert 2.5 < count <= 4.1
        assert run.refused == 0

    def test_too_few_instances_make_requests_wait_until_they_are_refused(self):
        assert self.scaled(3.0, least=1, most=1).refused > 0.5

    def test_an_asynchronous_one_starts_from_zero_and_goes_again(self):
        window = regular(20, 7200.0)
        rules = Scaling(places=1, startup=300, first=0, least=0, most=2, target=4, backlog=True)
        run = fleet(window, np.full(20, 1.0), rules)
        assert run.wait.min() >= 300
        assert run.wait.max() <= 300 + 60
        assert 0.1 < run.paid / window.seconds < 0.25

    def test_the_same_seed_gives_the_same_run(self):
        one, two = self.scaled(2.0), self.scaled(2.0)
        assert one.latency.tolist() == two.latency.tolist()
        assert poisson(2.0, 500, seed=1).times.tolist() != poisson(2.0, 500, seed=2).times.tolist()

    def test_a_window_that_is_shortened_waits_as_long_for_an_instance(self):
        whole = Window(np.arange(40) * 3600.0, 144_000.0, 1.0)
        short = Window(whole.times / 10, 14_400.0, 10.0, pace=0.1)
        rules = Scaling(places=1, startup=300, first=0, least=0, most=2, target=4, backlog=True)
        waits = [fleet(window, np.full(40, 1.0), rules).wait.mean() for window in (whole, short)]
        assert waits[0] == pytest.approx(waits[1], rel=0.1)
        assert waits[0] > 200
