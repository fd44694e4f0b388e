"""What things cost, in USD, by the prices of a region. Pure functions; amounts are of one month where tiers count.

Sources of the rules: the pages that `prices.toml` names; billed duration with init:
https://aws.amazon.com/blogs/compute/aws-lambda-standardizes-billing-for-init-phase/
"""

from collections.abc import Sequence
from math import ceil
from typing import Literal

from sampan.contract.errors import InvalidInputError
from sampan.contract.function import Architecture
from sampan.costs.prices import Prices

Kind = Literal["rest", "http"]
GB = 2**30  # bytes
MB_OF_A_GB = 1024  # of a function's memory
MILLION = 1e6
HTTP_UNIT = 512 * 1024  # bytes of a request that an HTTP API counts as one
FREE_STORAGE = 512  # MB of /tmp
SNAPSHOT_LEAST = 3 * 3600  # s that a snapshot is billed at least


def tiered(units: float, tiers: Sequence[tuple[float, float]]) -> float:
    """Cost of a month's units, each at the price of its tier."""
    cost, rest = 0.0, units
    for size, price in tiers:
        cost += min(rest, size) * price
        rest = max(0.0, rest - size)
    return cost


def billed_ms(duration_ms: float, init_ms: float = 0.0) -> int:
    """Milliseconds that an invocation is billed for: its init (since 2025-08 for every function) and itself."""
    return ceil(duration_ms + init_ms)


def gb_seconds(memory: float, milliseconds: float) -> float:
    """Of a function with `memory` MB."""
    return memory / MB_OF_A_GB * milliseconds / 1000


def compute_cost(prices: Prices, gb_s: float, architecture: Architecture = "x86_64") -> float:
    """A month's GB-seconds of Lambda functions."""
    return tiered(gb_s, prices.here.function.gb_second.get(architecture) or _unknown(prices, architecture))


def request_cost(prices: Prices, invocations: float) -> float:
    """The requests of Lambda functions, beside their GB-seconds."""
    return invocations / MILLION * prices.here.function.requests_million


def invocation_cost(
    prices: Prices,
    memory: int,
    duration_ms: float,
    init_ms: float = 0.0,
    architecture: Architecture = "x86_64",
    storage: int = FREE_STORAGE,
) -> float:
    """One invocation, in the first tier.

    Args:
        memory: MB.
        init_ms: of a cold start.
        storage: MB of /tmp.
    """
    billed = billed_ms(duration_ms, init_ms)
    cost = compute_cost(prices, gb_seconds(memory, billed), architecture) + request_cost(prices, 1)
    if storage <= FREE_STORAGE:
        return cost
    price = prices.known(prices.here.function.storage_gb_second, "lambda.storage_gb_second")
    return cost + gb_seconds(storage - FREE_STORAGE, billed) * price


def provisioned_cost(
    prices: Prices,
    memory: int,
    instances: int,
    seconds: float,
    busy_gb_s: float = 0.0,
    architecture: Architecture = "x86_64",
) -> float:
    """Instances that are kept ready for some time, and their use; requests cost as everywhere.

    Args:
        memory: MB of one.
        seconds: that they are kept; AWS rounds up to five minutes.
        busy_gb_s: GB-seconds in which they answered.
    """
    here = prices.here.function
    ready = prices.known(here.provisioned_gb_second.get(architecture), "lambda.provisioned_gb_second")
    used = prices.known(here.provisioned_duration_gb_second.get(architecture), "lambda.provisioned_duration_gb_second")
    kept = ceil(seconds / 300) * 300
    return instances * gb_seconds(memory, kept * 1000) * ready + busy_gb_s * used


def api_cost(prices: Prices, kind: Kind, calls: float, mean_bytes: float = 0.0) -> float:
    """A month's calls of an API.

    Args:
        mean_bytes: of a request; an HTTP API counts each begun 512 KB.
    """
    if kind == "rest":
        return tiered(calls / MILLION, prices.here.api.rest_million)
    return tiered(calls * max(1, ceil(mean_bytes / HTTP_UNIT)) / MILLION, prices.here.api.http_million)


def log_cost(prices: Prices, size: float) -> float:
    """A month's bytes written to CloudWatch Logs."""
    return tiered(size / GB, prices.here.logs.ingest_gb)


def transfer_cost(prices: Prices, size: float) -> float:
    """Bytes that leave AWS for the internet."""
    return size / GB * prices.here.transfer_gb


def instance_cost(prices: Prices, instance: str, hours: float) -> float:
    """Hours of one instance of a SageMaker endpoint."""
    return hours * prices.known(prices.here.instances.get(instance), f'instances."{instance}"')


def snapstart_cost(prices: Prices, memory: int, seconds: float, restores: float) -> float:
    """What SnapStart adds: one published version kept cached, and restores of it.

    Args:
        memory: MB of the function.
        seconds: that the version is kept; AWS bills three hours at least.
    """
    here = prices.here.function
    cache = prices.known(here.snapstart_cache_gb_second, "lambda.snapstart_cache_gb_second")
    restore = prices.known(here.snapstart_restore_gb, "lambda.snapstart_restore_gb")
    return gb_seconds(memory, max(seconds, SNAPSHOT_LEAST) * 1000) * cache + restores * memory / MB_OF_A_GB * restore


def serverless_cost(prices: Prices, memory: int, milliseconds: float) -> float:
    """Milliseconds that a serverless endpoint of SageMaker with `memory` MB computes."""
    here = prices.here.serverless
    return gb_seconds(memory, milliseconds) * prices.known(here.gb_second if here else None, "serverless.gb_second")


def endpoint_data_cost(prices: Prices, size: float) -> float:
    """Bytes into and out of a SageMaker endpoint."""
    return size / GB * prices.known(prices.here.endpoint_gb, "endpoint_gb")


def managed_cost(
    prices: Prices, instance: str, hours: float, invocations: float, ec2_hour: float | None = None
) -> float:
    """Lambda Managed Instances: hours of EC2, the fee on the on-demand price, and requests; no GB-seconds.

    Args:
        hours: of all instances together.
        ec2_hour: what an hour costs under a savings plan; None: the on-demand price.
    """
    here = prices.here.managed
    listed = prices.known(here.instances.get(instance) if here else None, f'managed.instances."{instance}"')
    fee = prices.known(here.fee if here else None, "managed.fee")
    paid = listed if ec2_hour is None else ec2_hour
    return hours * (paid + listed * fee) + request_cost(prices, invocations)


def _unknown(prices: Prices, architecture: str) -> Sequence[tuple[float, float]]:
    raise InvalidInputError(
        f"{prices.file} has no lambda.gb_second.{architecture} for {prices.region}; add it, or use --prices"
    )
