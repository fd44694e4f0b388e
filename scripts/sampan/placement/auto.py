"""`placement = "auto"`: function.toml's own workload, planned, and what it says then.

    [workload] of function.toml + version → Plan → function.toml with placement, memory and endpoint settled

`sampan package` settles it and writes the outcome among the papers; the stacks read it there. What a machine measures
differs a little from day to day, so that only packaging decides, and `sampan deploy` deploys what was packaged.
"""

from pathlib import Path
from typing import Any

import msgspec

from sampan.contract.errors import InvalidInputError
from sampan.contract.function import FunctionConfig, Workload
from sampan.costs.prices import DEFAULT_REGION, read_energy, read_prices
from sampan.placement.options import Case, Option
from sampan.placement.plan import Plan, Step, decide
from sampan.placement.profile import Measured, profile
from sampan.placement.traffic import Traffic, parse_burst, parse_rate, read_curve
from sampan.store.protocol import Version


def resolve_placement(
    config: FunctionConfig,
    version: Version,
    *,
    where: str,
    built: Path | None = None,
    region: str | None = None,
    measured: Measured | None = None,
    step: Step = lambda words: None,
) -> tuple[FunctionConfig, Plan]:
    """What a function with placement `auto` is, and why.

    Args:
        where: names its function.toml in errors.
        built: folder of an earlier package, for its measurements.

    Raises:
        InvalidInputError: there is no `[workload]`.
        PlanError: nothing does what it asks for.
    """
    if config.workload is None:
        raise InvalidInputError(
            f'{where}: placement "auto" needs a table [workload] with rate and p95_ms, such as rate = "5/s"; or set '
            "another placement"
        )
    case = Case(
        profile=profile(version, built=built, measured=measured),
        traffic=traffic_of(config.workload),
        prices=read_prices(region or DEFAULT_REGION),
        energy=read_energy(),
        p95_ms=config.workload.p95_ms,
        budget=config.workload.budget,
    )
    plan = decide(case, step=step)
    return settled(config, plan.choice), plan


def traffic_of(workload: Workload) -> Traffic:
    """The traffic that function.toml declares."""
    return Traffic(
        rate=parse_rate(workload.rate),
        curve=read_curve(workload.curve) if workload.curve else (),
        bursts=tuple(map(parse_burst, workload.bursts)),
    )


def settled(config: FunctionConfig, option: Option) -> FunctionConfig:
    """function.toml as an option has it; what is a stage's (provisioned instances) stays out."""
    plain: dict[str, Any] = msgspec.to_builtins(config)
    plain["placement"] = option.placement
    for name, value in option.settings.items():
        table, _, key = name.rpartition(".")
        if table == "endpoint":
            plain["endpoint"][key] = value
        elif name in plain:
            plain[name] = value
    return msgspec.convert(plain, FunctionConfig)
