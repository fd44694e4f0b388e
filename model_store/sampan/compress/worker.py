"""`python -m sampan.compress.worker TASK.json RESULT.json`: one task in a process of its own.

A pass may crash, hang, or write a model that is not the one it got. So after passes the model is loaded
and compared with the one before them: same inputs and outputs, same shapes of the answers, finite where they
were finite, and, for passes that say they change nothing, the same values but for rounding.
"""

import sys
from pathlib import Path

import msgspec
import numpy as np

from sampan.compress import measure, passes
from sampan.compress.sensitivity import errors_of
from sampan.compress.tasks import (
    Failure,
    Latency,
    LoadResult,
    LoadTask,
    PassResult,
    PassTask,
    RunTask,
    SensitivityResult,
    SensitivityTask,
    Task,
)
from sampan.contract.errors import ModelError, SampanError
from sampan.contract.metrics import relative_error
from sampan.contract.tensors import Array, Signature, Tensors, TensorSpec
from sampan.serving.golden import Sample, read_golden, write_golden
from sampan.serving.session import OnnxSession
from sampan.store.onnx_file import read_graph

Result = PassResult | SensitivityResult | LoadResult | Latency
ROUNDING = 1e-2  # relative error that fused float kernels stay far below


def main(task_file: str, result_file: str) -> None:
    task = msgspec.json.decode(Path(task_file).read_bytes(), type=Task)
    result: Result | Failure
    try:
        result = perform(task)
    except SampanError as error:
        result = Failure(error=error.message)
    except Exception as error:  # a tool's own; its class tells more than its words
        result = Failure(error=f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")
    Path(result_file).write_bytes(msgspec.json.encode(result))


def perform(task: Task) -> Result:
    samples = read_golden(Path(task.samples))
    if isinstance(task, PassTask):
        return run_passes(task, samples)
    if isinstance(task, SensitivityTask):
        return errors_of(task, [sample.inputs for sample in samples], calibration(task))
    if isinstance(task, LoadTask):
        return measure.load(Path(task.model), task.session, samples[0].inputs)
    return run(task, samples)


def run_passes(task: PassTask, samples: list[Sample]) -> PassResult:
    """Raises:
    ModelError: the model after the passes is not the one before, or cannot be loaded.
    """
    before, after = Path(task.model_in), Path(task.model_out)
    model, session, did = before, task.session, []
    for index, call in enumerate(task.passes):
        target = after if index == len(task.passes) - 1 else after.with_name(f"after-{index}.onnx")
        looks = passes.is_calibrated(call.name)
        told, needs = passes.run(call, model, target, calibration(task) if looks else ())
        session = {**session, **needs}
        did.append({"name": call.name, **told, "operators": read_graph(target).operators})
        model = target
    exact = all(passes.find(call.name).EXACT for call in task.passes)
    check_same(OnnxSession(before, threads=1, config=task.session), after, session, samples, exact)
    for index in range(len(task.passes) - 1):
        remove_model(after.with_name(f"after-{index}.onnx"))
    return PassResult(did=did, session=session)


def check_same(before: OnnxSession, after: Path, session: dict[str, str], samples: list[Sample], exact: bool) -> None:
    """Raises:
    ModelError: the model after is not the one before.
    """
    candidate = OnnxSession(after, threads=1, config=session)
    check_signature(before.signature, candidate.signature)
    for sample in samples:
        check_answers(before.run(sample.inputs), candidate.run(sample.inputs), exact)


def calibration(task: PassTask | SensitivityTask) -> list[Tensors]:
    return [sample.inputs for sample in read_golden(Path(task.calibration))]


def remove_model(path: Path) -> None:
    for location in read_graph(path).external:
        path.with_name(location).unlink(missing_ok=True)
    path.unlink()


def run(task: RunTask, samples: list[Sample]) -> Latency:
    source = OnnxSession(Path(task.source), threads=1, config=task.source_session)
    candidate = OnnxSession(Path(task.model), threads=1, config=task.session)
    answers = [Sample(sample.inputs, candidate.run(sample.inputs)) for sample in samples]
    with Path(task.outputs).open("wb") as file:
        write_golden(file, answers, compressed=False)
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
