"""Prices of one region, from a dated file.

prices.toml (or another) → checked → Prices of a region · Energy
"""

from datetime import date as Day
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

import msgspec

from sampan.contract.errors import InvalidInputError
from sampan.contract.function import Architecture
from sampan.contract.toml_lines import decode_toml

FILE = Path(__file__).with_name("prices.toml")
DEFAULT_REGION = "us-east-1"  # of a stage that names none

Price = Annotated[float, msgspec.Meta(ge=0)]  # USD
Tiers = Annotated[tuple[tuple[Price, Price], ...], msgspec.Meta(min_length=1)]  # units of a month, and their price


class Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of the file's tables: an unknown key is an error."""


class LambdaPrices(Table, frozen=True, kw_only=True):
    """Of Lambda functions. None: not known for this region.

    Attributes:
        gb_second: a second of 1,024 MB, by architecture; of the month's sum over all functions.
        storage_gb_second: /tmp above 512 MB.
        provisioned_gb_second: instances kept ready.
        provisioned_duration_gb_second: their use.
    """

    requests_million: Price
    gb_second: dict[Architecture, Tiers]
    storage_gb_second: Price | None = None
    snapstart_cache_gb_second: Price | None = None
    snapstart_restore_gb: Price | None = None
    provisioned_gb_second: dict[Architecture, Price] = {}
    provisioned_duration_gb_second: dict[Architecture, Price] = {}


class ApiPrices(Table, frozen=True, kw_only=True):
    """Of a million calls of API Gateway; units of the tiers are millions."""

    rest_million: Tiers
    http_million: Tiers


class LogPrices(Table, frozen=True, kw_only=True):
    """Of CloudWatch Logs: writing, keeping, and reading with Logs Insights."""

    ingest_gb: Tiers
    storage_gb_month: Price | None = None
    scan_gb: Price | None = None


class StoragePrices(Table, frozen=True, kw_only=True):
    """Of S3."""

    gb_month: Price


class KeyPrices(Table, frozen=True, kw_only=True):
    """Of KMS."""

    key_month: Price
    requests_10000: Price


class ServerlessPrices(Table, frozen=True, kw_only=True):
    """Of SageMaker's serverless endpoints: a second of 1 GB of memory."""

    gb_second: Price


class ManagedPrices(Table, frozen=True, kw_only=True):
    """Of Lambda Managed Instances: the fee as a share of EC2's on-demand price, and that price of an hour by type."""

    fee: Price = 0.15
    instances: dict[str, Price] = {}


class RegionPrices(Table, frozen=True, kw_only=True):
    """What the file says of a region.

    Attributes:
        instances: hours of SageMaker endpoints by instance type.
        endpoint_gb: a GB into or out of a SageMaker endpoint.
    """

    function: LambdaPrices = msgspec.field(name="lambda")
    api: ApiPrices
    logs: LogPrices
    transfer_gb: Price
    storage: StoragePrices | None = None
    keys: KeyPrices | None = None
    instances: dict[str, Price] = {}
    endpoint_gb: Price | None = None
    serverless: ServerlessPrices | None = None
    managed: ManagedPrices | None = None


class Energy(Table, frozen=True, kw_only=True):
    """Coefficients of an estimate: W of a vCPU idle and busy, W of a GB of memory, kg CO2e a kWh by region.

    `gpu_watts` is the power limit of a GPU by its name.
    """

    source: str
    min_watts: Price
    max_watts: Price
    utilisation: Annotated[float, msgspec.Meta(ge=0, le=1)]
    memory_watts_gb: Price
    pue: Annotated[float, msgspec.Meta(ge=1)]
    grid: dict[str, Price]
    gpu_watts: dict[str, Price] = {}


class PriceFile(Table, frozen=True, kw_only=True):
    """The whole file; `dates` are of what was looked up at another day than the rest, by the keys of `sources`."""

    date: Day
    dates: dict[str, Day] = {}
    sources: dict[str, str]
    regions: dict[str, RegionPrices]
    energy: Energy | None = None


class Prices(msgspec.Struct, frozen=True):
    """Prices of one region, and where they are from."""

    region: str
    date: Day
    sources: dict[str, str]
    file: str
    here: RegionPrices
    dates: dict[str, Day] = {}

    def known(self, price: float | None, what: str) -> float:
        """A price that is there.

        Raises:
            InvalidInputError: it is not; says what, and where to write it.
        """
        if price is None:
            raise InvalidInputError(
                f"{self.file} ({self.date}) has no {what} for {self.region}; add it, or name another file with --prices"
            )
        return price


def read_prices(region: str, file: Path | None = None) -> Prices:
    """Prices of a region.

    Args:
        file: in the form of `prices.toml`; None: that one.

    Raises:
        InvalidInputError: an unreadable file, one with holes, or an unknown region; says where.
    """
    chosen = file or FILE
    content = read_file(chosen)
    if region not in content.regions:
        raise InvalidInputError(
            f"{chosen} has no prices for the region '{region}', but for {', '.join(content.regions) or 'none'}; "
            "write a file with them and name it with --prices"
        )
    return Prices(region, content.date, content.sources, str(chosen), content.regions[region], content.dates)


def read_energy(file: Path | None = None) -> Energy:
    """Coefficients of the estimate of energy.

    Raises:
        InvalidInputError: an unreadable file, or one without them.
    """
    chosen = file or FILE
    energy = read_file(chosen).energy
    if energy is None:
        raise InvalidInputError(f"{chosen} has no table [energy]; add it as Sampan's own {FILE.name} has it")
    return energy


def read_file(file: Path) -> PriceFile:
    """The whole file, checked; read again when it changed.

    Raises:
        InvalidInputError: unreadable, no TOML, or with a hole; says where.
    """
    try:
        return _read(file, file.stat().st_mtime_ns)
    except OSError as error:
        raise InvalidInputError(f"the prices {file} cannot be read: {error.strerror}") from error


@lru_cache(maxsize=4)
def _read(file: Path, changed: int) -> PriceFile:
    content: dict[str, Any] = decode_toml(file.read_bytes(), str(file))
    try:
        return msgspec.convert(content, PriceFile)
    except msgspec.ValidationError as error:
        raise InvalidInputError(f"{file} has a hole or a mistake: {error}") from error
