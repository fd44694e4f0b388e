"""What candidates are measured on: inputs, and what the source model answered for them.

The truth is the answer of the first model of the lineage, so that losses do not add up unseen when a
compressed version is compressed again.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sampan.contract.errors import ModelError, NotFoundError
from sampan.contract.manifest import Golden
from sampan.contract.tensors import Tensors
from sampan.serving.golden import Sample
from sampan.serving.session import OnnxSession
from sampan.store import Store, Version
from sampan.store.record import fitting, record
from sampan.store.samples import read_samples

CALIBRATION = 32  # samples at most
MAX_BYTES = 1_000_000_000  # of samples to measure on; a version keeps fewer of them


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Samples whose `outputs` are the truth, how they came about, and what a person should know of them."""

    samples: list[Sample]
    golden: Golden
    notes: list[str]

    @property
    def given(self) -> bool:
        """Whether the samples are real ones."""
        return self.golden.source == "given"

    @property
    def calibration(self) -> list[Sample]:
        """Every second sample, for passes that look at activations."""
        return self.samples[::2][:CALIBRATION]

    @property
    def held_out(self) -> list[int]:
        """Indices of the samples that are not for calibration; none of a single sample."""
        seen = set(range(0, len(self.samples), 2)[:CALIBRATION])
        return [index for index in range(len(self.samples)) if index not in seen]

    @property
    def truth(self) -> list[Tensors]:
        return [sample.outputs for sample in self.samples]


def evaluate_on(store: Store, source: Version, given: Path | None) -> Evaluation:
    """The golden samples of the source, or given ones with the root's answers.

    Raises:
        InvalidInputError: the given samples are not what the model takes.
        ModelError: the source has no golden samples.
    """
    golden = source.manifest.golden
    if given is None:
        samples = [Sample(sample.inputs, sample.truth) for sample in source.golden()]
        if not samples:
            raise ModelError(f"{source.ref} has no golden samples; give some with --samples")
        return Evaluation(samples, golden, _notes(golden))
    root = root_of(store, source)
    session = OnnxSession(root.model_path, threads=1, config=root.manifest.needs.session)
    read = read_samples(given, session.signature)
    recording = record(session, read.samples, MAX_BYTES)
    return Evaluation(recording.samples, as_given(golden, len(recording.samples)), recording.notes)


def root_of(store: Store, version: Version) -> Version:
    """The first version of the lineage that the store still has."""
    while version.manifest.parent:
        try:
            version = store.find(version.manifest.parent)
        except NotFoundError:
            break
    return version


def recorded(samples: Sequence[Sample], answers: Sequence[Tensors]) -> list[Sample]:
    """Golden samples of the new version: its own answers, the truth as reference; as many as a version may have."""
    chosen = fitting(len(samples), samples[0])
    return [
        replace(
            samples[index],
            outputs={name: answers[index][name] for name in samples[index].outputs},
            reference=samples[index].outputs,
        )
        for index in chosen
    ]


def as_given(golden: Golden, count: int) -> Golden:
    return Golden(file=golden.file, count=count, source="given", rtol=golden.rtol, atol=golden.atol)


def _notes(golden: Golden) -> list[str]:
    if golden.source == "given":
        return []
    return ["the golden samples are generated, so the gates prove little; give real ones with --samples"]
