"""Measures a model in a process of its own: latency on one thread, time to load, peak memory.

    python -m sampan.placement.worker MODEL GOLDEN SECONDS OPTIONS(json) → one line of JSON

Latency is processor time of the thread that computes: what a quiet machine's clock would show. It is one thread's, so
that it stands for one vCPU.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

from sampan.serving.golden import Sample, read_golden
from sampan.serving.session import OnnxSession

LEAST, MOST = 5, 400  # runs
SAMPLES = 16


def measure(model: Path, golden: Path, seconds: float, options: dict[str, Any]) -> dict[str, Any]:
    """Load, run every sample in turn for some seconds; ms, bytes."""
    samples = read_golden(golden)[:SAMPLES]
    start = time.perf_counter()
    session = OnnxSession(model, threads=1, optimization=options["optimization"], config=options["session"])
    session.run(samples[0].inputs)
    load = (time.perf_counter() - start) * 1e3
    runs: list[float] = []
    end = time.perf_counter() + seconds
    while len(runs) < LEAST or (time.perf_counter() < end and len(runs) < MOST):
        before = time.thread_time()
        session.run(samples[len(runs) % len(samples)].inputs)
        runs.append((time.thread_time() - before) * 1e3)
    return {"load_ms": load, "latency_ms": runs, "peak_bytes": _peak(), "payload_bytes": _payload(samples)}


def _payload(samples: list[Sample]) -> float:
    """Mean bytes of the tensors of a request and its answer."""
    sizes = [sum(array.nbytes for part in (one.inputs, one.outputs) for array in part.values()) for one in samples]
    return sum(sizes) / len(sizes)


def _peak() -> int:
    """Largest resident memory of this process in bytes."""
    status = Path("/proc/self/status")
    if status.exists():
        return next(int(line.split()[1]) * 1024 for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


if __name__ == "__main__":
    print(json.dumps(measure(Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3]), json.loads(sys.argv[4]))))
