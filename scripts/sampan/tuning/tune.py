"""A function tuned, start to end: what `sampan tune` does.

function.toml → image → sizes × rounds → figures at the region's prices → choice
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from sampan.contract.errors import InvalidInputError
from sampan.costs.prices import Prices
from sampan.emulation.artefacts import Artefacts, Level
from sampan.emulation.compare import SAMPLES
from sampan.emulation.instance import Instance, InstanceError, lambda_environment
from sampan.emulation.requests import golden_events
from sampan.packaging.project import Function
from sampan.serving.settings import MEMORY_PER_CPU, read_settings
from sampan.tuning.choice import Choice, Objective, ObjectiveError, choose
from sampan.tuning.figures import COLD_SHARE, Figures, figures_of
from sampan.tuning.sizes import beyond_here, sizes_to_try
from sampan.tuning.trial import Plan, Trial, Trials, Watch, try_sizes

_MACHINE_NOTE = "times are this machine's; Lambda's processors are others, so leave room below an objective"
_INIT_NOTE = (
    f"the init runs on each size's own CPU share here; Lambda gives it more below {MEMORY_PER_CPU:,} MB, so that "
    "cold starts there are shorter than these"
)
_SNAPSTART_NOTE = "snapstart: cold starts are measured without a snapshot, those from one are shorter"


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """How to tune.

    Attributes:
        sizes: MB; empty: the usual ones and the function's own.
        level: what to run; None: the image where there is an engine, else the emulator.
        cold_share: share of the calls that are a cold start, 0 to 1.
    """

    sizes: Sequence[int] = ()
    level: Level | None = None
    objective: Objective = field(default_factory=Objective)
    cold_share: float = COLD_SHARE
    plan: Plan = field(default_factory=Plan)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuning:
    """What was found. `refusal` says why there is no choice."""

    function: str
    model: str
    level: Level
    memory: int
    order: Order
    prices: Prices
    architecture: str
    trials: Trials
    threads: dict[int, int]
    figures: tuple[Figures, ...]
    choice: Choice | None
    refusal: str
    notes: tuple[str, ...]

    def check(self) -> Choice:
        """The choice.

        Raises:
            ObjectiveError: there is none.
        """
        if self.choice is None:
            raise ObjectiveError(self.refusal)
        return self.choice


def level_of(artefacts: Artefacts, asked: Level | None = None) -> tuple[Level, str]:
    """What is run, and why it is not the image; empty where it is, or where the level was asked for.

    Raises:
        InstanceError: nothing is to be had here.
    """
    reason = artefacts.why_not(asked or "docker")
    if not reason:
        return asked or "docker", ""
    absent = "" if asked else artefacts.why_not("rie")
    if asked or absent:
        raise InstanceError(f"{reason}; {absent}" if absent else reason)
    return "rie", reason


def tune(
    artefacts: Artefacts,
    prices: Prices,
    order: Order | None = None,
    *,
    step: Callable[[str], None] = lambda words: None,
    watch: Watch = lambda words, done, total: None,
) -> Tuning:
    """Measure a function at several memory sizes, and choose.

    Args:
        step: gets what is being done before anything is measured; watch: words, instances done and to do.

    Raises:
        SampanError: the function, its model, its image or a call of it does not do; no level is to be had. That no
            size holds the objective is no error here: `Tuning.check()`.
    """
    chosen = order or Order()
    config, name = artefacts.function.config, artefacts.function.name
    _check_placement(artefacts.function)
    level, instead = level_of(artefacts, chosen.level)
    sizes = {size: beyond_here(size) for size in sizes_to_try(config.memory, chosen.sizes)}
    step("packaging the function")
    events = golden_events(artefacts.version.golden()[:SAMPLES], artefacts.context.manifest)
    artefacts.starter(level)
    trials = try_sizes(_start(artefacts, level), sizes, events, chosen.plan, watch=watch)
    figures = tuple(figures_of(trial, prices, config.architecture, chosen.cold_share) for trial in trials.measured)
    choice, refusal = _chosen(name, trials, figures, chosen)
    return Tuning(
        function=name,
        model=artefacts.context.ref,
        level=level,
        memory=config.memory,
        order=chosen,
        prices=prices,
        architecture=config.architecture,
        trials=trials,
        threads={size: read_settings(lambda_environment(artefacts.sized(size))).threads for size in sizes},
        figures=figures,
        choice=choice,
        refusal=refusal,
        notes=_notes(trials, instead, config.snapstart),
    )


def _check_placement(function: Function) -> None:
    placement = function.config.placement
    if placement.startswith("sagemaker"):
        raise InvalidInputError(
            f"{function.name} has placement '{placement}', whose instances have no memory setting; "
            "sampan tune is for what runs on Lambda"
        )


def _start(artefacts: Artefacts, level: Level) -> Callable[[int], Instance]:
    return lambda memory: artefacts.starter(level, memory)()


def _chosen(name: str, trials: Trials, figures: tuple[Figures, ...], order: Order) -> tuple[Choice | None, str]:
    unseen = [trial.memory for trial in trials.sizes if trial.state == "not measured"]
    beyond = f"{_listed(unseen)} MB were not measured, this machine has too few cores" if unseen else ""
    if trials.stopped:
        done = min((len(trial.rounds) for trial in trials.sizes if trial.state == "measured"), default=0)
        return None, f"stopped, with {done} of {order.plan.rounds} rounds of every size; nothing is chosen from a part"
    if not figures:
        tried = "; ".join(f"{trial.memory} MB: {trial.state}" for trial in trials.sizes)
        few = f"; {beyond}" if beyond else ""
        return None, f"function '{name}' was measured at no size ({tried}){few}; try others with --sizes"
    try:
        return choose(figures, order.objective, beyond), ""
    except ObjectiveError as error:
        return None, str(error)


def _notes(trials: Trials, instead: str, snapstart: bool) -> tuple[str, ...]:
    notes = [f"level rie, since docker is not to be had: {instead}"] if instead else []
    notes += [*trials.notes, _MACHINE_NOTE]
    if any(trial.memory < MEMORY_PER_CPU for trial in trials.measured):
        notes.append(_INIT_NOTE)
    return (*notes, *([_SNAPSTART_NOTE] if snapstart else []))


def _listed(sizes: Sequence[int]) -> str:
    return ", ".join(map(str, sizes))


def as_dict(tuning: Tuning) -> dict[str, Any]:
    """What was found, in JSON's types: `sampan tune -o json`."""
    choice, prices = tuning.choice, tuning.prices
    return {
        "function": tuning.function,
        "model": tuning.model,
        "level": tuning.level,
        "memory": tuning.memory,
        "region": prices.region,
        "prices": {"file": prices.file, "date": prices.date.isoformat()},
        "architecture": tuning.architecture,
        "objective": {"p95_ms": tuning.order.objective.p95, "cold_ms": tuning.order.objective.cold},
        "cold_share": tuning.order.cold_share,
        "rounds": tuning.order.plan.rounds,
        "sizes": [_size(tuning, trial) for trial in tuning.trials.sizes],
        "choice": choice and choice.best.memory,
        "runner_up": choice and choice.runner_up and choice.runner_up.memory,
        "knee": choice and choice.knee.memory,
        "reason": choice.reason if choice else tuning.refusal,
        "stopped": tuning.trials.stopped,
        "notes": list(tuning.notes),
    }


def _size(tuning: Tuning, trial: Trial) -> dict[str, Any]:
    facts = {
        "memory": trial.memory,
        "vcpus": round(trial.memory / MEMORY_PER_CPU, 3),
        "threads": tuning.threads[trial.memory],
        "state": trial.state,
        "reason": trial.reason or None,
    }
    found = next((figures for figures in tuning.figures if figures.memory == trial.memory), None)
    if found is None:
        return facts
    return facts | {
        "cold_ms": found.cold,
        "init_ms": found.init,
        "p50_ms": found.p50,
        "p95_ms": found.p95,
        "billed_ms": found.billed,
        "peak_mb": found.peak,
        "cost_usd": found.cost,
        "million_usd": round(found.million, 4),
    }
