"""Measurements, made inside a worker process on one thread.

Latency is the processor time of the thread that computes: what a quiet machine's clock would show, without the
waits that others cause on a busy one. It is paired and interleaved: every sample runs through source and
candidate one right after the other, in turning order, so that caches and frequency touch both alike. A round
is one pass over the samples and gives one ratio; the median of the rounds' ratios has a bootstrap interval
(Efron & Tibshirani 1993, chapter 13).
"""

import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sampan.compress.tasks import Latency, LoadResult
from sampan.contract.tensors import Tensors
from sampan.serving.session import OnnxSession, Session

SAMPLES = 8
LEAST_ROUNDS = 7
MOST_ROUNDS = 200
RESAMPLES = 2000


def load(model: Path, config: dict[str, str], inputs: Tensors) -> LoadResult:
    """Session creation and first run, in a process that has done neither before."""
    start = time.perf_counter()
    OnnxSession(model, threads=1, config=config).run(inputs)
    return LoadResult(load_ms=(time.perf_counter() - start) * 1e3, peak_bytes=peak_bytes())


def latency(source: Session, candidate: Session, inputs: Sequence[Tensors], seconds: float, seed: int) -> Latency:
    """Rounds until `seconds` are over, seven at least, over as many samples as that allows.

    The first run of a sample warms up and is not counted.
    """
    pair = min(sum(_round(source, candidate, inputs[:1], turn)) for turn in range(2))
    count = int(seconds / (LEAST_ROUNDS * pair))
    chosen = inputs[: max(1, min(SAMPLES, count))]
    _round(source, candidate, chosen, 0)
    rounds: list[tuple[float, float]] = []
    end = time.perf_counter() + seconds
    while len(rounds) < LEAST_ROUNDS or (time.perf_counter() < end and len(rounds) < MOST_ROUNDS):
        rounds.append(_round(source, candidate, chosen, len(rounds)))
    times = np.array(rounds) * 1e3 / len(chosen)
    return summary(times, seed)


def summary(times: np.ndarray[tuple[int, int], np.dtype[np.float64]], seed: int) -> Latency:
    """`times`: one row a round, source and candidate in milliseconds a sample."""
    ratios = times[:, 1] / times[:, 0]
    picks = np.random.default_rng(seed).integers(0, len(ratios), (RESAMPLES, len(ratios)))
    low, high = np.percentile(np.median(ratios[picks], axis=1), (2.5, 97.5))
    source_ms, candidate_ms = np.median(times, axis=0)
    return Latency(
        ratio=float(np.median(ratios)),
        low=float(low),
        high=float(high),
        source_ms=float(source_ms),
        candidate_ms=float(candidate_ms),
        rounds=len(ratios),
    )


def peak_bytes() -> int:
    """Largest resident memory of this process since it was started."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _round(source: Session, candidate: Session, inputs: Sequence[Tensors], turn: int) -> tuple[float, float]:
    """Seconds that source and candidate took for all samples."""
    total = [0.0, 0.0]
    for index, sample in enumerate(inputs):
        order = (0, 1) if (turn + index) % 2 == 0 else (1, 0)
        for which in order:
            session = (source, candidate)[which]
            start = time.thread_time()
            session.run(sample)
            total[which] += time.thread_time() - start
    return total[0], total[1]
