"""What a worker process is asked and what it answers, as JSON. Models and samples travel as files."""

from typing import Any

import msgspec

Session = dict[str, str]


class PassCall(msgspec.Struct, frozen=True, kw_only=True):
    """One pass by its name, with parameters that are plain JSON values."""

    name: str
    params: dict[str, Any]


class PassTask(msgspec.Struct, frozen=True, kw_only=True, tag="pass", tag_field="task"):
    """Run passes one after the other, then check the last model against the first."""

    passes: list[PassCall]
    model_in: str
    model_out: str
    session: Session
    samples: str
    calibration: str


class SensitivityTask(msgspec.Struct, frozen=True, kw_only=True, tag="sensitivity", tag_field="task"):
    """Let a pass change one layer alone, for each of `layers` in turn until `seconds` are over."""

    change: PassCall
    layers: list[str]
    model: str
    session: Session
    samples: str
    calibration: str
    seconds: float


class LoadTask(msgspec.Struct, frozen=True, kw_only=True, tag="load", tag_field="task"):
    """Open a session in this fresh process and run one sample."""

    model: str
    session: Session
    samples: str


class RunTask(msgspec.Struct, frozen=True, kw_only=True, tag="run", tag_field="task"):
    """Write the candidate's outputs for every sample, then time it against the source."""

    source: str
    source_session: Session
    model: str
    session: Session
    samples: str
    outputs: str
    seconds: float
    seed: int


Task = PassTask | SensitivityTask | LoadTask | RunTask


class PassResult(msgspec.Struct, frozen=True, kw_only=True):
    """What each pass did, and every session option the model needs now."""

    did: list[dict[str, Any]]
    session: Session


class SensitivityResult(msgspec.Struct, frozen=True, kw_only=True):
    """The relative error at the outputs that each layer alone causes; layers that were not reached are missing."""

    errors: dict[str, float]


class LoadResult(msgspec.Struct, frozen=True, kw_only=True):
    """Session creation with the first run (milliseconds), and peak memory of the process (bytes)."""

    load_ms: float
    peak_bytes: int


class Latency(msgspec.Struct, frozen=True, kw_only=True):
    """Candidate over source: median ratio with its 95 % confidence interval, and median times (milliseconds)."""

    ratio: float
    low: float
    high: float
    source_ms: float
    candidate_ms: float
    rounds: int


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """Why a worker did not do what it was asked, in one sentence."""

    error: str
