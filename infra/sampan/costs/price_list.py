"""The AWS Price List API as a file of prices: what `sampan plan --refresh-prices` writes.

    GetProducts of SageMaker, Lambda, EC2 → products (JSON) → prices of what we know by name → prices.toml, dated

Only what is found is replaced; what the API does not name keeps its price and its date.

Source: https://docs.aws.amazon.com/awsaccountbilling/latest/aboutv2/price-changes.html
"""

import json
import os
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from sampan.contract.errors import InvalidInputError
from sampan.costs.machines import PREFIX, machines
from sampan.costs.prices import FILE, ManagedPrices, PriceFile, RegionPrices, ServerlessPrices, read_file

Filters = Mapping[str, str]
Fetch = Callable[[str, Filters], Iterable[Mapping[str, Any]]]

SAGEMAKER, LAMBDA, EC2 = "AmazonSageMaker", "AWSLambda", "AmazonEC2"
_MEMORY = re.compile(r"ServerlessInf:Mem-(\d+)GB$")
# Usage types of Lambda, without the region's prefix; tiers beyond the first keep their shape.
_LAMBDA = {
    "Lambda-Provisioned-Concurrency": ("provisioned_gb_second", "x86_64"),
    "Lambda-Provisioned-Concurrency-ARM": ("provisioned_gb_second", "arm64"),
    "Lambda-Provisioned-GB-Second": ("provisioned_duration_gb_second", "x86_64"),
    "Lambda-Provisioned-GB-Second-ARM": ("provisioned_duration_gb_second", "arm64"),
}
_EC2 = {"operatingSystem": "Linux", "tenancy": "Shared", "preInstalledSw": "NA", "capacitystatus": "Used"}


def refresh(target: Path, region: str, fetch: Fetch, step: Callable[[str], None] = lambda words: None) -> PriceFile:
    """Write the newest prices of a region into a file.

    Args:
        target: replaced; what it has of other regions stays. Where there is none it begins as Sampan's own.
        fetch: products of a service by filters.

    Raises:
        InvalidInputError: the API has nothing for the region, or the file cannot be read or written.
    """
    old = read_file(target if target.exists() else FILE)
    base = old.regions.get(region)
    step("SageMaker")
    sagemaker = list(fetch(SAGEMAKER, {"regionCode": region}))
    step("Lambda")
    functions = list(fetch(LAMBDA, {"regionCode": region}))
    if not sagemaker or not functions:
        raise InvalidInputError(
            f"the Price List has nothing for the region '{region}'; is that its name, as eu-west-1 is?"
        )
    if base is None:
        known = ", ".join(old.regions)
        raise InvalidInputError(
            f"{target} has no region '{region}' to refresh (it has {known}); copy one of its tables under that name"
        )
    managed: dict[str, float] = {}
    for name in (name for name, found in machines().items() if found.gpu):
        step(f"EC2 {name}")
        managed |= ec2(fetch(EC2, {"regionCode": region, "instanceType": name, **_EC2}))
    new = _merged(base, sagemaker, functions, managed)
    today = datetime.now(UTC).date()
    dates = old.dates | dict.fromkeys(("instances", "serverless", "provisioned", "managed"), today)
    file = msgspec.structs.replace(old, dates=dates, regions=old.regions | {region: new})
    _write(target, file)
    return file


def hosting(products: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """USD an hour of real-time endpoints, of the instance types that are known."""
    found = {}
    for product in products:
        attributes = product["product"]["attributes"]
        name = str(attributes.get("instanceName", ""))
        price = on_demand(product)
        if attributes.get("component") == "Hosting" and name.removeprefix(PREFIX) in machines() and price:
            found[name] = price
    return dict(sorted(found.items()))


def serverless(products: Iterable[Mapping[str, Any]]) -> float | None:
    """USD a second of 1 GB of a serverless endpoint; None where the list has none."""
    for product in products:
        size = _MEMORY.search(str(product["product"]["attributes"].get("usagetype", "")))
        price = on_demand(product)
        if size and price:
            return round(price / int(size[1]), 12)
    return None


def provisioned(products: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Prices of provisioned concurrency, as they stand in `[lambda]`."""
    found: dict[str, dict[str, float]] = {}
    for product in products:
        usage = str(product["product"]["attributes"].get("usagetype", ""))
        key = next((key for key in _LAMBDA if usage == key or usage.endswith(f"-{key}")), None)
        price = on_demand(product)
        if key and price:
            table, architecture = _LAMBDA[key]
            found.setdefault(table, {})[architecture] = price
    return found


def ec2(products: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """USD an hour by EC2's instance type."""
    priced = ((str(one["product"]["attributes"].get("instanceType", "")), on_demand(one)) for one in products)
    return {name: price for name, price in priced if price}


def on_demand(product: Mapping[str, Any]) -> float | None:
    """The on-demand price in USD, of the first tier; None: none, or nothing is paid."""
    for term in product.get("terms", {}).get("OnDemand", {}).values():
        tiers = sorted(term["priceDimensions"].values(), key=lambda one: float(one.get("beginRange", 0)))
        for tier in tiers:
            price = float(tier["pricePerUnit"].get("USD", 0))
            if price > 0:
                return price
    return None


def toml(value: Mapping[str, Any], path: tuple[str, ...] = ()) -> str:
    """A table of plain values as TOML; what is None is left out."""
    plain = {name: one for name, one in value.items() if one is not None and not isinstance(one, Mapping)}
    tables = {name: one for name, one in value.items() if isinstance(one, Mapping) and one}
    lines = [f"{_key(name)} = {_value(one)}" for name, one in plain.items()]
    head = f"[{'.'.join(map(_key, path))}]\n" if path and lines else ""
    text = head + "".join(f"{line}\n" for line in lines) + ("\n" if lines else "")
    return text + "".join(toml(one, (*path, name)) for name, one in tables.items())


def _merged(
    base: RegionPrices,
    sagemaker: Iterable[Mapping[str, Any]],
    functions: Iterable[Mapping[str, Any]],
    managed: Mapping[str, float],
) -> RegionPrices:
    replace = msgspec.structs.replace
    second = serverless(sagemaker)
    old = base.managed or ManagedPrices()
    return replace(
        base,
        instances=base.instances | hosting(sagemaker),
        serverless=ServerlessPrices(gb_second=second) if second else base.serverless,
        function=replace(base.function, **{**_given(base), **provisioned(functions)}),
        managed=replace(old, instances={**old.instances, **managed}),
    )


def _given(base: RegionPrices) -> dict[str, Any]:
    return {table: getattr(base.function, table) for table, _ in _LAMBDA.values()}


def _write(target: Path, file: PriceFile) -> None:
    text = "# Written by sampan plan --refresh-prices from the AWS Price List. [dates] says what is from when.\n\n"
    text += toml(msgspec.to_builtins(file, builtin_types=(type(file.date),)))
    sibling = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        sibling.write_text(text)
        sibling.replace(target)
    except OSError as error:
        raise InvalidInputError(f"the prices {target} cannot be written: {error.strerror}") from error


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else json.dumps(name)


def _value(value: Any) -> str:
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, str):
        return json.dumps(value)
    return str(value)
