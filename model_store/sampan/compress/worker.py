"""`python -m sampan.compress.worker TASK.json RESULT.json`: one task in a process of its own.

A pass may crash, hang, or write a model that is not the one it got. So after each pass the model is loaded
and compared with the one before: same inputs and outputs, same shapes of the answers, finite where they
were finite, and, for a pass that says it changes nothing, the same values but for rounding.
"""

import sys
from pathlib import Path

import msgspec
import numpy as np

from sampan.compress import measure, passes
from sampan.compress.tasks import Failure, Latency, LoadResult, LoadTask, PassResult, PassTask, RunTask, Task
from sampan.contract.errors import ModelError, SampanError
from sampan.contract.metrics import relative_error
from sampan.contract.tensors import Array, Signature, Tensors, TensorSpec
from sampan.serving.golden import Sample, read_golden, write_golden
from sampan.serving.session import OnnxSession

ROUNDING = 1e-2  # relative error that fused float kernels stay far below


def main(task_file: str, result_file: str) -> None:
    task = msgspec.json.decode(Path(task_file).read_bytes(), type=Task)
    result: PassResult | LoadResult | Latency | Failure
    try:
        result = perform(task)
    except SampanError as error:
        result = Failure(error=error.message)
    except Exception as error:  # a tool's own; its class tells more than its words
        result = Failure(error=f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")
    Path(result_file).write_bytes(msgspec.json.encode(result))


def perform(task: Task) -> PassResult | LoadResult | Latency:
    samples = read_golden(Path(task.samples))
    if isinstance(task, PassTask):
        return run_pass(task, samples)
    if isinstance(task, LoadTask):
        return measure.load(Path(task.model), task.session, samples[0].inputs)
    return run(task, samples)


def run_pass(task: PassTask, samples: list[Sample]) -> PassResult:
    chosen = passes.find(task.name)
    before, after = Path(task.model_in), Path(task.model_out)
    did = chosen.apply(before, after, **task.params)
    changed = did.get("stored") != 0
    session = {**task.session, **(chosen.SESSION if changed else {})}
    reference = OnnxSession(before, threads=1, config=task.session)
    candidate = OnnxSession(after, threads=1, config=session)
    check_signature(reference.signature, candidate.signature)
    for sample in samples:
        check_answers(reference.run(sample.inputs), candidate.run(sample.inputs), chosen.EXACT)
    return PassResult(did=did, session=session)


def run(task: RunTask, samples: list[Sample]) -> Latency:
    source = OnnxSession(Path(task.source), threads=1, config=task.source_session)
    candidate = OnnxSession(Path(task.model), threads=1, config=task.session)
    answers = [Sample(sample.inputs, candidate.run(sample.inputs)) for sample in samples]
    with Path(task.outputs).open("wb") as file:
        write_golden(file, answers)
    inputs = [sample.inputs for sample in samples]
    return measure.latency(source, candidate, inputs, task.seconds, task.seed)


def check_signature(before: Signature, after: Signature) -> None:
    """Inputs must stay as they are; of an output, a variable dimension may become fixed and the reverse.

    Raises:
        ModelError: says which tensor changed.
    """
    if before.inputs != after.inputs:
        raise ModelError(f"the inputs changed: {_text(before.inputs)} became {_text(after.inputs)}")
    same = len(before.outputs) == len(after.outputs) and all(map(_fits, before.outputs, after.outputs))
    if not same:
        raise ModelError(f"the outputs changed: {_text(before.outputs)} became {_text(after.outputs)}")


def check_answers(before: Tensors, after: Tensors, exact: bool) -> None:
    """Compare the answers for one sample.

    Raises:
        ModelError: says which output has another shape, is no longer finite, or has other values.
    """
    for name, want in before.items():
        got = after[name]
        if got.shape != want.shape or got.dtype != want.dtype:
            raise ModelError(f"output '{name}' was {want.dtype}{list(want.shape)} and is {got.dtype}{list(got.shape)}")
        if want.dtype.kind != "f":
            continue
        if not np.isfinite(got[np.isfinite(want)]).all():
            raise ModelError(f"output '{name}' was finite and no longer is")
        if exact and (error := _error(want, got)) > ROUNDING:
            raise ModelError(f"output '{name}' changed by {error:.2g} of its norm in a pass that changes nothing")


def _error(want: Array, got: Array) -> float:
    finite = np.isfinite(want)
    return relative_error(want[finite].astype(np.float64), got[finite].astype(np.float64))


def _fits(before: TensorSpec, after: TensorSpec) -> bool:
    alike = (before.name, before.datatype, len(before.shape)) == (after.name, after.datatype, len(after.shape))
    return alike and all(a == b or -1 in (a, b) for a, b in zip(before.shape, after.shape, strict=True))


def _text(specs: tuple[TensorSpec, ...]) -> str:
    return ", ".join(f"{spec.name} {spec.datatype}{list(spec.shape)}" for spec in specs)


if __name__ == "__main__":
    main(*sys.argv[1:3])
