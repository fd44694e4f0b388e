"""`compress`: from a version to a smaller (faster, cheaper) version that holds the gates, or to an error.

    source → samples and truth → candidates (searched, built, measured) → winner → proven again → registered

Nothing is registered before its gates hold twice: as measured in the worker, and on the answers of a session
loaded here with the options it will be served with. The store is written once, by its own draft.
"""

import hashlib
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from sampan.compress import choice, gates
from sampan.compress.candidate import HELD_OUT, THOROUGH, Built, Effort, Workshop
from sampan.compress.evaluation import Evaluation, evaluate_on, recorded
from sampan.compress.front import front
from sampan.compress.journal import Journal
from sampan.compress.recipes import Recipe
from sampan.compress.report import SCHEMA, Candidate, NothingHeldError, Report, encode_report, machine, tools
from sampan.compress.search import Clock, Found, Search, Watch
from sampan.compress.storage import pack
from sampan.contract.errors import GateError
from sampan.contract.manifest import ANY_CPU, GateEntry, Needs
from sampan.contract.metrics import Gate
from sampan.contract.tensors import Tensors
from sampan.serving.golden import Sample, difference
from sampan.serving.session import OnnxSession
from sampan.store import Store, Version
from sampan.store.derive import derive

GUARD_SECONDS = 90.0  # that an emulated CPU may take for the winner


@dataclass(frozen=True, slots=True)
class Outcome:
    """The new version, whether it was in the store before, and the report."""

    version: Version
    existed: bool
    report: Report


def compress(
    store: Store,
    ref: str,
    *,
    gate: Sequence[str] = (),
    samples: Path | None = None,
    objective: str = "size",
    recipes: Sequence[Recipe] | None = None,
    effort: Effort = THOROUGH,
    budget: float | None = None,
    seed: int = 0,
    certify: bool = False,
    packed: bool = False,
    work: Path | None = None,
    fresh: bool = False,
    watch: Watch = lambda words, done, total: None,
) -> Outcome:
    """Make candidates of a version, and register the best that holds every gate.

    Args:
        gate: such as `cosine>=0.99`; none takes the default for the kind of model (`gates.default`).
        samples: a folder of `.npz` or one `.npz`; None takes the golden samples of the version.
        objective: `size`, `latency` or `cost`, as `choice` defines them.
        recipes: these and no others; None searches.
        budget: seconds that the search may take; None takes the effort's.
        seed: of the bootstrap.
        certify: refuse when the samples are too few to certify the gates.
        packed: store the model file packed with Zstandard (`storage`).
        work: a folder where an interrupted search leaves what it measured, and finds it again unless `fresh`.
        watch: told what happens.

    Raises:
        NothingHeldError: no candidate holds the gates and beats the source; carries the report.
        GateError: the winner answers otherwise once it is loaded again, or the source answers no numbers.
        InvalidInputError, NotFoundError, ModelError, StoreError: as their messages say.
    """
    source = store.find(ref)
    limits = gates.limits(gate, source.manifest)
    evaluation = evaluate_on(store, source, samples)
    gates.check_applicable(limits, evaluation.truth)
    if certify:
        gates.require_certified(limits, len(evaluation.samples), evaluation.given)
    budget = effort.budget if budget is None else budget
    with tempfile.TemporaryDirectory(prefix="sampan-compress-") as folder:
        watch("measuring the source", 0, budget)
        clock = Clock(budget, time.monotonic)
        workshop = Workshop(source, evaluation, Path(folder), effort, seed)
        journal = Journal(work, _facts(source, evaluation, limits, objective, effort, seed), fresh)
        if recipes is None:
            found = Search(workshop, limits, objective, clock, journal, watch, effort.thorough).run()
        else:
            found = _named(workshop, recipes, limits, clock, watch)
        report = _report(workshop, evaluation, found, objective, limits, seed)
        if recipes is None:
            report = msgspec.structs.replace(report, budget=budget, warnings=[*report.warnings, *_resumed(journal)])
        if report.winner is not None:
            watch("proving the winner", clock.gone, budget)
            workshop.remake(found.recipes[report.winner], lambda words: watch(words, clock.gone, budget))
            report = _guarded(workshop, report, limits)
        report = msgspec.structs.replace(report, seconds=clock.gone)
        if report.winner is None:
            journal.forget()
            raise NothingHeldError(report)
        built = workshop.made[report.winner]
        if packed:
            built = replace(built, model=pack(built.model, Path(tempfile.mkdtemp(dir=folder))))
        proof = prove(built, workshop.answers(report.winner), evaluation, limits)
        outcome = _register(store, source, built, proof, evaluation, report)
        journal.forget()
        return outcome


def _resumed(journal: Journal) -> list[str]:
    words = f"{journal.resumed} candidates are as an interrupted search measured them; --fresh measures anew"
    return [words] if journal.resumed else []


def _facts(
    source: Version, evaluation: Evaluation, limits: Sequence[Gate], objective: str, effort: Effort, seed: int
) -> dict[str, Any]:
    """All that measurements depend on; a search goes on with those of an earlier one if nothing of it changed."""
    samples = hashlib.sha256()
    for sample in evaluation.samples:
        for name, array in (*sample.inputs.items(), *sample.outputs.items()):
            samples.update(f"{name} {array.dtype} {array.shape}".encode() + array.tobytes())
    return {
        "schema": SCHEMA,
        "source": source.manifest.digest,
        "samples": samples.hexdigest(),
        "gates": [str(limit) for limit in limits],
        "objective": objective,
        "effort": [effort.seconds, effort.loads, effort.thorough],
        "seed": seed,
        **machine(),
    }


def _named(workshop: Workshop, recipes: Sequence[Recipe], limits: Sequence[Gate], clock: Clock, watch: Watch) -> Found:
    """The candidates of these recipes; a fallback only where the recipe it stands in for missed."""
    done: dict[str, Candidate] = {}
    for index, recipe in enumerate(recipes):
        plain = done.get(recipe.instead_of or "")
        if recipe.instead_of and (plain is None or plain.holds or not plain.gates):
            continue

        def progress(words: str, name: str = recipe.name, index: int = index) -> None:
            watch(f"{name}: {words}", index, len(recipes))

        done[recipe.name] = workshop.candidate(recipe, limits, progress)
    return Found(list(done.values()), {recipe.name: recipe for recipe in recipes}, [], "")


def _guarded(workshop: Workshop, report: Report, limits: Sequence[Gate]) -> Report:
    """The report with what an emulated CPU says of the winner, where no proof says it."""
    assert report.winner is not None
    guard = workshop.guarded(report.winner, limits, GUARD_SECONDS)
    candidates = [
        msgspec.structs.replace(candidate, guard=msgspec.to_builtins(guard))
        if candidate.recipe == report.winner
        else candidate
        for candidate in report.candidates
    ]
    warnings = [*report.warnings]
    if guard.safe != ANY_CPU:
        warnings.append(f"safe on: {guard.safe} ({guard.words})")
    return msgspec.structs.replace(report, candidates=candidates, warnings=warnings)


def prove(
    built: Built, answers: Sequence[Tensors], evaluation: Evaluation, limits: Sequence[Gate]
) -> tuple[list[Sample], list[GateEntry]]:
    """Load a model with the options it is served with and measure its gates once more.

    Raises:
        GateError: a gate no longer holds, or an answer is not the one that was measured before.
    """
    session = OnnxSession(built.model, threads=1, config=built.session)
    again = [session.run(sample.inputs) for sample in evaluation.samples]
    for before, after in zip(answers, again, strict=True):
        if words := difference(before, after, evaluation.golden):
            raise GateError(f"the chosen model answers otherwise when loaded again: {words}; nothing is registered")
    entries = gates.check(limits, evaluation.truth, again, evaluation.given)
    missed = [entry.gate for entry in entries if not entry.passed]
    if missed:
        raise GateError(f"the chosen model misses {', '.join(missed)} when loaded again; nothing is registered")
    return recorded(evaluation.samples, again), entries


def _register(
    store: Store,
    source: Version,
    built: Built,
    proof: tuple[list[Sample], list[GateEntry]],
    evaluation: Evaluation,
    report: Report,
) -> Outcome:
    samples, entries = proof
    added = derive(
        store,
        source,
        built.model,
        samples,
        recipe={"name": report.winner, "passes": [_brief(step) for step in built.passes], "tools": tools()},
        gates=entries,
        needs=Needs(extras=source.manifest.needs.extras, session=built.session),
        golden=evaluation.golden,
        report=encode_report(report),
        safe=_winner(report).guard["safe"],  # type: ignore[index]
    )
    return Outcome(added.version, added.existed, report)


def _brief(step: dict[str, Any]) -> dict[str, Any]:
    """What a pass did, without the count of operators, which the report has."""
    return {key: value for key, value in step.items() if key != "operators"}


def _winner(report: Report) -> Candidate:
    return next(candidate for candidate in report.candidates if candidate.recipe == report.winner)


def _report(
    workshop: Workshop,
    evaluation: Evaluation,
    found: Found,
    objective: str,
    limits: Sequence[Gate],
    seed: int,
) -> Report:
    candidates = found.candidates
    winner = choice.best(candidates, objective)
    return Report(
        source=workshop.facts,
        machine=machine(),
        objective=objective,
        gates=[str(limit) for limit in limits],
        samples=len(evaluation.samples),
        samples_source=evaluation.golden.source,
        seed=seed,
        candidates=candidates,
        winner=winner.recipe if winner else None,
        why=choice.why(candidates, winner, objective),
        warnings=[*evaluation.notes, *(_doubts(winner, limits) if winner else [])],
        sensitivity=found.sensitivity,
        front=front(candidates),
        stopped=found.stopped,
    )


def _doubts(winner: Candidate, limits: Sequence[Gate]) -> list[str]:
    """What the samples are too few to tell, and a gate that only the samples of the calibration hold."""
    words = gates.doubts(winner.gates)
    for limit in limits:
        value = winner.metrics.get(f"{HELD_OUT} {limit}")
        if value is not None and not limit.holds(value):
            words.append(f"on the samples that nothing was calibrated on, {limit} is {value:.4g}")
    return words
