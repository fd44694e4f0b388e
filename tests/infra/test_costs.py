"""The cost model against the worked examples of AWS's pricing pages."""

from pathlib import Path

import pytest

from sampan.contract.errors import InvalidInputError
from sampan.costs.cost import (
    GB,
    api_cost,
    billed_ms,
    compute_cost,
    gb_seconds,
    instance_cost,
    invocation_cost,
    log_cost,
    provisioned_cost,
    request_cost,
    tiered,
    transfer_cost,
)
from sampan.costs.energy import co2e_grams, watt_hours, watts
from sampan.costs.prices import FILE, Prices, read_energy, read_prices

pytestmark = pytest.mark.infra


@pytest.fixture
def prices() -> Prices:
    return read_prices("us-east-1")


class TestWorkedExamples:
    """https://aws.amazon.com/lambda/pricing/ and https://aws.amazon.com/api-gateway/pricing/, us-east-1."""

    def test_three_million_requests_of_a_mobile_backend(self, prices: Prices):
        """1,536 MB, 120 ms; 400,000 GB-seconds and a million requests are free."""
        used = gb_seconds(1536, 3e6 * 120)
        assert used == 540_000
        compute = compute_cost(prices, used - 400_000)
        requests = request_cost(prices, 3e6 - 1e6)
        assert (round(compute, 2), round(requests, 2)) == (2.33, 0.40)

    def test_three_million_seconds_of_512_mb(self, prices: Prices):
        assert round(compute_cost(prices, gb_seconds(512, 3e6 * 1000) - 400_000), 1) == 18.3

    def test_two_hours_of_provisioned_concurrency(self, prices: Prices):
        """1,000 instances of 1,024 MB for two hours, which answer 1.2 million requests of a second."""
        ready = provisioned_cost(prices, 1024, 1000, 7200)
        busy = provisioned_cost(prices, 1024, 1000, 7200, gb_seconds(1024, 1.2e6 * 1000)) - ready
        requests = request_cost(prices, 1.2e6)
        assert (round(ready, 2), round(busy, 2), round(requests, 2)) == (30.00, 11.67, 0.24)

    def test_init_is_billed_with_the_invocation(self):
        """REPORT lines of https://bitesizedserverless.com/bite/when-is-the-lambda-init-phase-free-and-when-is-it-billed/"""
        assert billed_ms(1049.63, 1293.83) == 2344
        assert billed_ms(1058.15, 1307.68) == 2366

    def test_five_million_calls_of_a_rest_api(self, prices: Prices):
        calls = api_cost(prices, "rest", 5e6)
        transfer = transfer_cost(prices, 5e6 * 3 * 1024)
        assert (round(calls, 2), round(transfer, 2), round(calls + transfer, 2)) == (17.50, 1.29, 18.79)

    def test_216_million_calls_of_an_http_api(self, prices: Prices):
        assert api_cost(prices, "http", 216e6) == pytest.approx(216)


def test_each_tier_has_its_price(prices: Prices):
    assert tiered(5, [(2, 10), (2, 5), (float("inf"), 1)]) == 20 + 10 + 1
    assert api_cost(prices, "rest", 1000e6) == pytest.approx(333 * 3.5 + 667 * 2.8)
    assert compute_cost(prices, 7e9) == pytest.approx(6e9 * 0.0000166667 + 1e9 * 0.000015)


def test_an_http_api_counts_each_begun_half_megabyte(prices: Prices):
    assert api_cost(prices, "http", 1e6, 512 * 1024) == pytest.approx(1)
    assert api_cost(prices, "http", 1e6, 512 * 1024 + 1) == pytest.approx(2)
    assert api_cost(prices, "rest", 1e6, 6e6) == pytest.approx(3.5)


def test_an_invocation_is_its_parts(prices: Prices):
    warm = invocation_cost(prices, 1024, 99.2)
    assert warm == pytest.approx(0.1 * 0.0000166667 + 0.2e-6)
    assert invocation_cost(prices, 1024, 99.2, 900.8) == pytest.approx(0.0000166667 + 0.2e-6)
    assert invocation_cost(prices, 1024, 99.2, architecture="arm64") < warm
    stored = invocation_cost(prices, 1024, 100, storage=512 + 1024)
    assert stored - warm == pytest.approx(0.1 * 0.0000000309)


def test_logs_and_instances(prices: Prices):
    assert log_cost(prices, GB) == pytest.approx(0.5)
    assert log_cost(prices, 10241 * GB) == pytest.approx(10240 * 0.5 + 0.25)
    assert instance_cost(prices, "ml.g5.xlarge", 730) == pytest.approx(1027.84)


def test_energy_is_estimated_from_its_coefficients():
    """https://www.cloudcarbonfootprint.org/docs/methodology/: watts of a vCPU at 50 %: 0.74 + 0.5 × (3.5 − 0.74)."""
    energy = read_energy()
    assert watts(energy, 1769) == pytest.approx((2.12 + 1769 / 1024 * 0.392) * 1.135)
    hour = watt_hours(energy, 1769, 3_600_000)
    assert hour == pytest.approx(watts(energy, 1769))
    assert co2e_grams(energy, hour, "us-east-1") == pytest.approx(hour * 0.379069)
    with pytest.raises(InvalidInputError, match="no factor for 'mars-north-1'"):
        co2e_grams(energy, hour, "mars-north-1")


def test_the_file_says_when_and_whence(prices: Prices):
    assert str(prices.date) in FILE.read_text()
    assert set(prices.sources) >= {"lambda", "api", "logs", "transfer"}
    assert all(source.startswith("https://aws.amazon.com/") for source in prices.sources.values())


def test_an_unknown_region_is_named_with_those_there_are():
    with pytest.raises(InvalidInputError, match=r"no prices for the region 'mars-north-1', but for us-east-1, eu-cent"):
        read_prices("mars-north-1")


def test_what_the_file_does_not_know_is_said():
    prices = read_prices("eu-central-1")
    with pytest.raises(InvalidInputError, match=r"no lambda.provisioned_gb_second for eu-central-1; add it"):
        provisioned_cost(prices, 1024, 1, 60)
    with pytest.raises(InvalidInputError, match=r'no instances."ml.p99.large" for eu-central-1'):
        instance_cost(prices, "ml.p99.large", 1)


def test_a_file_replaces_the_own_one(tmp_path: Path):
    file = tmp_path / "prices.toml"
    file.write_text(FILE.read_text().replace("rest_million = [[333, 3.50]", "rest_million = [[333, 7.00]"))
    assert api_cost(read_prices("us-east-1", file), "rest", 1e6) == pytest.approx(7)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (("requests_million = 0.20", ""), "missing required field `requests_million`"),
        (("transfer_gb = 0.09", "transfer_gb = -1"), "`float` >= 0"),
        (("transfer_gb = 0.09", 'transfer_gb = "dear"'), "Expected `float`, got `str`"),
        (("rest_million = [[333, 3.50]", "rest_million = [[333]"), "length 2"),
        (("[regions.us-east-1.logs]", "[regions.us-east-1.books]"), "unknown field `books`"),
        (("date = 2025-08-01", "date = "), "this is no TOML"),
    ],
)
def test_a_file_with_a_hole_is_one_sentence(tmp_path: Path, change: tuple[str, str], sentence: str):
    file = tmp_path / "prices.toml"
    file.write_text(FILE.read_text().replace(*change))
    with pytest.raises(InvalidInputError) as failed:
        read_prices("us-east-1", file)
    assert sentence in failed.value.message
    assert str(file) in failed.value.message


def test_a_missing_file_and_one_without_energy(tmp_path: Path):
    with pytest.raises(InvalidInputError, match="cannot be read: No such file"):
        read_prices("us-east-1", tmp_path / "none.toml")
    file = tmp_path / "prices.toml"
    file.write_text(FILE.read_text().split("[energy]")[0])
    with pytest.raises(InvalidInputError, match=r"has no table \[energy\]"):
        read_energy(file)
