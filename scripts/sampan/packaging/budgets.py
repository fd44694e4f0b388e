"""Budgets: what a function costs, held against what its `function.toml` allows.

    sizes of what was built + measurement of a cold start + golden samples → verdicts, and what to do

What was not measured is said to be not measured, never taken as held.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sampan.contract.errors import SampanError
from sampan.contract.function import FunctionConfig
from sampan.contract.manifest import Manifest
from sampan.packaging import advice

MEGABYTE = 1_000_000
MODEL_SHARE = 0.2  # of the whole; from there on a smaller model is what helps
SHOWN = 3  # largest items that get a line of advice though nothing is over


class BudgetError(SampanError):
    """Raise when a function costs more than its budgets allow."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """A function as it ran.

    Attributes:
        level: where it was measured: `rie` or `docker`.
        cold_start_ms: median, process start to first answer.
        phases: what the cold start consists of, ms: runtime, import, verify, load, first_run, rest.
        peak_memory_mb: most memory the process held.
        p95_ms: 95th percentile of the warm invocations.
        invocations: how many warm ones there were.
    """

    level: str
    cold_start_ms: float
    phases: Mapping[str, float]
    peak_memory_mb: float
    p95_ms: float
    invocations: int


@dataclass(frozen=True, slots=True)
class Item:
    """One part of what was built; `kind` is `dependency`, `code` or `model`. Unpacked MB, and files."""

    name: str
    kind: str
    mb: float
    files: int


@dataclass(frozen=True, slots=True)
class Phase:
    """One part of a cold start."""

    name: str
    ms: float


@dataclass(frozen=True, slots=True)
class Sizes:
    """What was built, on top of the base: parts unpacked, and MB as a push moves them (None: not built).

    `complete` is False where only a context was looked at, which has no dependencies in it.
    """

    items: tuple[Item, ...]
    compressed_mb: float | None = None
    complete: bool = True

    @property
    def unpacked_mb(self) -> float:
        return sum(item.mb for item in self.items)

    @property
    def files(self) -> int:
        return sum(item.files for item in self.items)


@dataclass(frozen=True, slots=True)
class Payload:
    """Bytes of the largest event or result of the golden samples, as they travel: V2 binary, and V2 JSON.

    `json` is None where JSON cannot hold them: bytes that are no text.
    """

    binary: int
    json: int | None

    @property
    def least(self) -> int:
        """In the form that a client would choose."""
        return self.binary if self.json is None else min(self.binary, self.json)


@dataclass(frozen=True, slots=True)
class Verdict:
    """One budget. `value` is None where it was not measured, `limit` where nothing is demanded.

    `held` is None in both cases; `advice` is what to do when it is False.
    """

    budget: str
    value: float | None
    limit: float | None
    unit: str
    advice: str = ""

    @property
    def held(self) -> bool | None:
        return None if self.value is None or self.limit is None else not _over(self.value, self.limit)


@dataclass(frozen=True, slots=True)
class Waterfall:
    """What costs how much: parts largest first, phases in their order, every budget, and what to do."""

    model: str
    sizes: Sizes
    phases: tuple[Phase, ...]
    verdicts: tuple[Verdict, ...]
    advice: tuple[str, ...]
    measurement: Measurement | None = None
    payload: Payload | None = None

    @property
    def over(self) -> tuple[Verdict, ...]:
        """Budgets that are exceeded."""
        return tuple(verdict for verdict in self.verdicts if verdict.held is False)

    def limit(self, budget: str) -> float | None:
        return next((verdict.limit for verdict in self.verdicts if verdict.budget == budget), None)

    def check(self) -> None:
        """Prove that no budget is exceeded.

        Raises:
            BudgetError: names every one that is.
        """
        if self.over:
            raise BudgetError(f"over budget: {'; '.join(map(_excess, self.over))}; {self.over[0].advice}")


def assess(
    config: FunctionConfig,
    sizes: Sizes,
    measurement: Measurement | None = None,
    payload: Payload | None = None,
    *,
    manifest: Manifest | None = None,
) -> Waterfall:
    """Hold a function against its budgets.

    Args:
        config: of the function, with the budgets.
        sizes: of what was built.
        measurement: of the function as it ran; None: it was not run.
        payload: of the golden samples; None: not looked at.
        manifest: of the packaged version, which tells whether it is compressed already.
    """
    ordered = Sizes(
        tuple(sorted(sizes.items, key=lambda item: (-item.mb, item.name))), sizes.compressed_mb, sizes.complete
    )
    facts = advice.Facts(config, config.model.split(":")[0].split("@")[0], manifest)
    verdicts = tuple(
        Verdict(name, value, limit, unit, _remedy(name, facts, ordered, measurement) if _over(value, limit) else "")
        for name, value, limit, unit in _values(config, ordered, measurement, payload)
    )
    words = [verdict.advice for verdict in verdicts if verdict.advice]
    words += _largest(facts, ordered)
    if measurement:
        words.append(_slowest(facts, measurement))
    if payload and payload.json and payload.json > config.budgets.payload_mb * MEGABYTE >= payload.binary:
        words.append(advice.binary_only(payload.json / MEGABYTE, config.budgets.payload_mb))
    phases = tuple(Phase(name, ms) for name, ms in measurement.phases.items()) if measurement else ()
    return Waterfall(config.model, ordered, phases, verdicts, tuple(dict.fromkeys(words)), measurement, payload)


def _over(value: float | None, limit: float | None) -> bool:
    return value is not None and limit is not None and value > limit


def _largest(facts: advice.Facts, sizes: Sizes) -> list[str]:
    whole = sizes.unpacked_mb
    shown = sizes.items[:SHOWN] if sizes.complete else ()
    return [advice.of_item(facts, item.name, item.kind, item.mb, whole) for item in shown]


def _values(
    config: FunctionConfig, sizes: Sizes, measurement: Measurement | None, payload: Payload | None
) -> Sequence[tuple[str, float | None, float | None, str]]:
    """Budget, value, limit and unit of each, in the order of `function.toml`."""
    budgets = config.budgets
    ran = measurement
    return (
        ("image_mb", sizes.compressed_mb, budgets.image_mb, "MB"),
        ("unpacked_mb", sizes.unpacked_mb if sizes.complete else None, budgets.unpacked_mb, "MB"),
        ("files", sizes.files if sizes.complete else None, budgets.files, ""),
        ("cold_start_ms", ran.cold_start_ms if ran else None, budgets.cold_start_ms, "ms"),
        ("memory_mb", ran.peak_memory_mb if ran else None, budgets.memory_mb or config.memory, "MB"),
        ("p95_ms", ran.p95_ms if ran else None, budgets.p95_ms, "ms"),
        ("payload_mb", payload.least / MEGABYTE if payload else None, budgets.payload_mb, "MB"),
    )


def _remedy(budget: str, facts: advice.Facts, sizes: Sizes, ran: Measurement | None) -> str:
    """What to do about a budget that is exceeded."""
    if budget in ("image_mb", "unpacked_mb"):
        models = (item for item in sizes.items if item.kind == "model" and item.mb > MODEL_SHARE * sizes.unpacked_mb)
        first = next(models, sizes.items[0])
        return advice.of_item(facts, first.name, first.kind, first.mb, sizes.unpacked_mb)
    if budget == "files":
        most = max(sizes.items, key=lambda item: item.files)
        return advice.fewer_files(most.name, most.files, sizes.files)
    if budget == "payload_mb" or ran is None:
        return advice.PAYLOAD
    if budget == "cold_start_ms":
        return _slowest(facts, ran)
    return advice.memory(facts, ran.peak_memory_mb) if budget == "memory_mb" else advice.latency(facts)


def _slowest(facts: advice.Facts, ran: Measurement) -> str:
    phases = ran.phases or {"rest": ran.cold_start_ms}
    name = max(phases, key=lambda phase: phases[phase])
    return advice.of_phase(facts, name, phases[name], ran.cold_start_ms)


def _excess(verdict: Verdict) -> str:
    return f"{verdict.budget} is {amount(verdict.value)} of {amount(verdict.limit)}"


def amount(value: float | None) -> str:
    """A figure for a person: four digits or three, no false precision."""
    if value is None:
        return "not measured"
    if value >= 1000 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"
