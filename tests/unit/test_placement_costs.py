"""What instances, snapshots and managed functions cost, against AWS's worked examples; the Price List; energy."""

import json
from pathlib import Path

import pytest

from sampan.contract.errors import InvalidInputError
from sampan.costs.cost import (
    GB,
    compute_cost,
    endpoint_data_cost,
    gb_seconds,
    instance_cost,
    managed_cost,
    request_cost,
    serverless_cost,
    snapstart_cost,
)
from sampan.costs.energy import machine_watts
from sampan.costs.machines import Machine, machine, machines
from sampan.costs.price_list import ec2, hosting, on_demand, provisioned, refresh, serverless
from sampan.costs.prices import FILE, Prices, read_energy, read_prices


@pytest.fixture
def prices() -> Prices:
    return read_prices("us-east-1")


class TestWorkedExamples:
    """https://aws.amazon.com/lambda/pricing/ and https://aws.amazon.com/sagemaker/ai/pricing/, us-east-1."""

    def test_snapstart_of_ten_thousand_vehicles(self, prices: Prices):
        """7.44 million requests of 2 s and 1 GB in 31 days; one in a hundred restores."""
        month = 31 * 24 * 3600
        requests = request_cost(prices, 7.44e6)
        compute = compute_cost(prices, gb_seconds(1024, 7.44e6 * 2000))
        cache = snapstart_cost(prices, 1024, month, 0)
        snapshot = snapstart_cost(prices, 1024, month, 74_400)
        assert (round(requests, 2), round(compute, 2), round(cache, 2)) == (1.49, 248.00, 4.03)
        assert snapshot == pytest.approx(14.43, abs=0.005)
        assert requests + compute + snapshot == pytest.approx(263.92, abs=0.01)

    def test_a_managed_api_of_100_million_requests(self, prices: Prices):
        """2,000 hours of m7g.xlarge under a savings plan of $0.0457; the fee is on the on-demand price."""
        assert managed_cost(prices, "m7g.xlarge", 2000, 100e6, ec2_hour=0.0457) == pytest.approx(160.36)
        assert managed_cost(prices, "m7g.xlarge", 2000, 0) == pytest.approx(2000 * 0.1632 * 1.15)

    def test_two_instances_for_a_month(self, prices: Prices):
        """Two ml.c5.xlarge for 31 days; 3,100 MB in and 310 MB out."""
        assert instance_cost(prices, "ml.c5.xlarge", 24 * 31 * 2) == pytest.approx(303.552)
        assert endpoint_data_cost(prices, 3100 / 1000 * GB) == pytest.approx(0.0496)
        assert endpoint_data_cost(prices, 310 / 1000 * GB) == pytest.approx(0.00496)

    def test_a_serverless_endpoint_of_3_gb(self, prices: Prices):
        """The Price List's $0.00006 a second of ServerlessInf:Mem-3GB."""
        assert serverless_cost(prices, 3072, 1000) == pytest.approx(0.00006)


def test_a_snapshot_is_billed_three_hours_at_least(prices: Prices):
    assert snapstart_cost(prices, 1024, 60, 0) == snapstart_cost(prices, 1024, 3 * 3600, 0)


def test_what_a_region_does_not_know_is_said():
    prices = read_prices("eu-central-1")
    for cost, what in (
        (lambda: serverless_cost(prices, 1024, 1), "serverless.gb_second"),
        (lambda: managed_cost(prices, "g5.xlarge", 1, 1), r'managed.instances."g5.xlarge"'),
        (lambda: endpoint_data_cost(prices, 1), "endpoint_gb"),
        (lambda: snapstart_cost(prices, 1024, 1, 1), "lambda.snapstart_cache_gb_second"),
    ):
        with pytest.raises(InvalidInputError, match=f"has no {what} for eu-central-1"):
            cost()


def test_every_price_of_an_endpoint_is_of_a_known_machine(prices: Prices):
    for name in prices.here.instances:
        assert machine(name).memory_gb > 0
    assert machine("ml.g5.xlarge") is machine("g5.xlarge")
    assert {found.gpu for found in machines().values() if found.gpu} <= set(read_energy().gpu_watts)


def test_an_unknown_instance_type_is_named_with_a_near_one():
    with pytest.raises(
        InvalidInputError, match=r"no instance type 'ml.g5.xlarg' is known \(did you mean 'ml.g5.xlarge'"
    ):
        machine("ml.g5.xlarg")
    with pytest.raises(InvalidInputError, match=r"there are m5\.large"):
        machine("zz")


def test_a_gpu_draws_power_with_its_load():
    """Two vCPUs at 0.74 + 0.5 × 2.76 W, 8 GB at 0.392 W, a T4 at 70 × (0.1 + 0.9 × 0.5) W, times 1.135."""
    energy = read_energy()
    found = Machine(vcpus=2, memory_gb=8, speed=1, gpu="T4", gpu_memory_gb=16)
    assert machine_watts(energy, found, 0.5) == pytest.approx((2 * 2.12 + 8 * 0.392 + 70 * 0.55) * 1.135)
    with pytest.raises(InvalidInputError, match=r"\[energy.gpu_watts\] has no 'H900'"):
        machine_watts(energy, Machine(vcpus=2, memory_gb=8, speed=1, gpu="H900"), 0.5)


def product(price: str, begin: str = "0", **attributes: str) -> dict:
    """As GetProducts has one: the shape of a recorded answer, with invented prices."""
    dimension = {"unit": "Hrs", "beginRange": begin, "pricePerUnit": {"USD": price}}
    return {
        "product": {"attributes": attributes},
        "terms": {"OnDemand": {"A.B": {"priceDimensions": {"A.B.C": dimension}}}},
    }


LIST = {
    "AmazonSageMaker": [
        product("9.99", instanceName="ml.g5.xlarge", component="Training"),
        product("1.5000000000", instanceName="ml.g5.xlarge", component="Hosting", usagetype="USE1-Host:ml.g5.xlarge"),
        product("3.0", instanceName="ml.p99.large", component="Hosting"),
        product("0.0", instanceName="ml.m5.large", component="Hosting"),
        product("13.57", instanceName="ml.m5.large", usagetype="USE1-TrainingPlanUpfrontFee:ml.m5.large"),
        product("0.0000880000", usagetype="USE1-ServerlessInf:Mem-4GB"),
    ],
    "AWSLambda": [
        product("0.0000050000", usagetype="Lambda-Provisioned-Concurrency"),
        product("0.0000040000", usagetype="EUC1-Lambda-Provisioned-GB-Second-ARM"),
    ],
    "AmazonEC2": [product("0.9000000000", instanceType="g5.xlarge")],
}


class TestPriceList:
    def test_only_endpoints_of_known_machines_are_taken(self):
        assert hosting(LIST["AmazonSageMaker"]) == {"ml.g5.xlarge": 1.5}
        assert serverless(LIST["AmazonSageMaker"]) == pytest.approx(0.000022)
        assert serverless([]) is None
        assert ec2(LIST["AmazonEC2"]) == {"g5.xlarge": 0.9}
        assert provisioned(LIST["AWSLambda"]) == {
            "provisioned_gb_second": {"x86_64": 0.000005},
            "provisioned_duration_gb_second": {"arm64": 0.000004},
        }

    def test_what_is_not_on_demand_or_free_has_no_price(self):
        assert on_demand({"terms": {"Reserved": {}}}) is None
        assert on_demand(product("0.0")) is None

    def fetch(self, service: str, filters: dict[str, str]) -> list[dict]:
        assert filters["regionCode"] in ("us-east-1", "eu-central-1", "mars-north-1")
        return [] if filters["regionCode"] == "mars-north-1" else json.loads(json.dumps(LIST[service]))

    def test_the_file_is_written_and_read_again(self, tmp_path: Path):
        file = tmp_path / "prices.toml"
        refresh(file, "us-east-1", self.fetch)
        new, old = read_prices("us-east-1", file), read_prices("us-east-1")
        assert instance_cost(new, "ml.g5.xlarge", 1) == 1.5
        assert instance_cost(new, "ml.m5.large", 1) == instance_cost(old, "ml.m5.large", 1)
        assert managed_cost(new, "g5.xlarge", 1, 0) == pytest.approx(0.9 * 1.15)
        assert new.here.api == old.here.api
        assert new.here.function.gb_second == old.here.function.gb_second
        assert set(new.dates) >= {"instances", "serverless", "managed"}
        assert read_energy(file) == read_energy()
        refresh(file, "eu-central-1", self.fetch)
        assert instance_cost(read_prices("eu-central-1", file), "ml.g5.xlarge", 1) == 1.5
        assert list(tmp_path.iterdir()) == [file]

    def test_an_unknown_region_changes_nothing(self, tmp_path: Path):
        with pytest.raises(InvalidInputError, match="the Price List has nothing for the region 'mars-north-1'"):
            refresh(tmp_path / "prices.toml", "mars-north-1", self.fetch)
        assert list(tmp_path.iterdir()) == []


def test_the_dates_of_what_was_looked_up_later_are_there(prices: Prices):
    assert prices.dates["managed"] > prices.date
    assert FILE.name == "prices.toml"
