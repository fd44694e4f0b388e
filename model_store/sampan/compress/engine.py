"""`compress`: from a version to a smaller (faster, cheaper) version that holds the gates, or to an error.

    source → samples and truth → candidates (built, measured) → winner → proven again → registered

Nothing is registered before its gates hold twice: as measured in the worker, and on the answers of a session
loaded here with the options it will be served with. The store is written once, by its own draft.
"""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sampan.compress import choice, gates
from sampan.compress.candidate import THOROUGH, Built, Effort, Workshop
from sampan.compress.evaluation import Evaluation, evaluate_on, recorded
from sampan.compress.recipes import RECIPES, Recipe
from sampan.compress.report import Candidate, NothingHeldError, Report, encode_report, machine, tools
from sampan.contract.errors import GateError
from sampan.contract.manifest import GateEntry, Needs
from sampan.contract.metrics import Gate
from sampan.contract.tensors import Tensors
from sampan.serving.golden import Sample, difference
from sampan.serving.session import OnnxSession
from sampan.store import Store, Version
from sampan.store.derive import derive

Watch = Callable[[str, int, int], None]  # words, recipes done, recipes in all


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
    recipes: Sequence[Recipe] = RECIPES,
    effort: Effort = THOROUGH,
    seed: int = 0,
    watch: Watch = lambda words, done, total: None,
) -> Outcome:
    """Make candidates of a version by recipes, and register the best that holds every gate.

    Args:
        gate: such as `cosine>=0.99`; none takes the default for the kind of model (`gates.default`).
        samples: a folder of `.npz` or one `.npz`; None takes the golden samples of the version.
        objective: `size`, `latency` or `cost`, as `choice` defines them.
        seed: of the bootstrap.
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
    with tempfile.TemporaryDirectory(prefix="sampan-compress-") as folder:
        watch("measuring the source", 0, len(recipes))
        workshop = Workshop(source, evaluation, Path(folder), effort, seed)
        candidates = _candidates(workshop, recipes, limits, watch)
        report = _report(workshop, evaluation, candidates, objective, limits, seed)
        if report.winner is None:
            raise NothingHeldError(report)
        built = workshop.made[report.winner]
        proof = prove(built, workshop.answers(report.winner), evaluation, limits)
        return _register(store, source, built, proof, evaluation, report)


def _candidates(workshop: Workshop, recipes: Sequence[Recipe], limits: Sequence[Gate], watch: Watch) -> list[Candidate]:
    done: dict[str, Candidate] = {}
    for index, recipe in enumerate(recipes):
        plain = done.get(recipe.instead_of or "")
        if recipe.instead_of and (plain is None or plain.holds or not plain.gates):
            continue

        def progress(words: str, name: str = recipe.name, index: int = index) -> None:
            watch(f"{name}: {words}", index, len(recipes))

        done[recipe.name] = workshop.candidate(recipe, limits, progress)
    watch("choosing", len(recipes), len(recipes))
    return list(done.values())


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
    entries = gates.check(limits, evaluation.truth, again)
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
        recipe={"name": report.winner, "passes": built.passes, "tools": tools()},
        gates=entries,
        needs=Needs(extras=source.manifest.needs.extras, session=built.session),
        golden=evaluation.golden,
        report=encode_report(report),
    )
    return Outcome(added.version, added.existed, report)


def _report(
    workshop: Workshop,
    evaluation: Evaluation,
    candidates: list[Candidate],
    objective: str,
    limits: Sequence[Gate],
    seed: int,
) -> Report:
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
        warnings=[*evaluation.notes, *(gates.doubts(winner.gates) if winner else [])],
    )
