"""`python main.py TASK.json`: trains a student and writes it as ONNX; several processes start again under torchrun.

Runs in an environment with torch, onnx, onnxscript and numpy; Sampan itself need not be there. Reads the arrays
that `sampan.distill` wrote into the task's folder, prints one JSON object a line (start, epoch, done; missing or
error) and leaves `student.onnx` and torch's own answers for the held-out rows, `answer-N.npy`, in the folder.
"""

import json
import os
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

NEEDED = ("torch", "onnx", "onnxscript")


def main(task_file: str, *member: str) -> int:
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        tell(event="missing", packages=missing)
        return 1
    task = json.loads(Path(task_file).read_text())
    if task["processes"] > 1 and not member:
        launch(task_file, task["processes"])
    from students import UsageError
    from torch import distributed

    try:
        teach(task, Path(task_file).parent)
    except UsageError as error:
        tell(event="error", error=str(error))
        return 1
    except Exception as error:  # torch's, or of the student's own code; its class tells more than its words
        tell(event="error", error=f"{type(error).__name__}: {' '.join(str(error).split())[:400]}")
        raise
    finally:
        if distributed.is_initialized():
            distributed.destroy_process_group()
    return 0


def launch(task_file: str, processes: int) -> None:
    """Become torchrun, which starts this script as each of the processes."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    os.execv(sys.executable, [sys.executable, *torchrun, __file__, task_file, "member"])


def tell(**event: Any) -> None:
    print(json.dumps(event), flush=True)


def teach(task: dict[str, Any], folder: Path) -> None:
    """Build, train, and (in the first process) answer and export."""
    import torch
    from logs import Nowhere, open_log
    from loop import Teaching, train
    from students import build, count

    place = _place(task["processes"])
    learn, check, held = (_rows(task, folder, name) for name in ("train", "validation", "held_out"))
    teaching = Teaching(task, learn)
    shapes = [tuple(target.shape[1:]) for target in learn.targets]
    student, name = build(task, [x.numpy() for x in learn.inputs], shapes)
    _check_shapes(task, student, learn, shapes)
    first = place.rank == 0
    log = open_log(task["log"], task["log_dir"], {**task["settings"], "student": name}) if first else Nowhere()

    def told(epoch: int, figures: dict[str, float]) -> None:
        log.write(epoch, figures)
        if first:
            tell(event="epoch", epoch=epoch, **figures)

    if first:
        tell(event="start", student=name, parameters=count(student), torch=torch.__version__)
    try:
        done = train(task, student, teaching, learn, check, place, told)
    finally:
        log.close()
    if first:
        served = _served(task, student, teaching)
        _answer(task, served, held, folder)
        _export(task, served, held, folder / "student.onnx")
        tell(event="done", **done)


def _place(processes: int) -> Any:
    """Joins the other processes where there are some; each computes on one core, which small students like best."""
    import torch
    from loop import Place
    from torch import distributed

    torch.set_num_threads(1)
    if processes == 1:
        return Place(0, 1)
    distributed.init_process_group("gloo")
    return Place(distributed.get_rank(), distributed.get_world_size())


def _rows(task: dict[str, Any], folder: Path, part: str) -> Any:
    import torch
    from loop import Rows

    index = np.load(folder / f"{part}.npy")

    def arrays(side: str) -> list[Any]:
        loaded = (np.load(folder / f"{side}-{i}.npy", mmap_mode="r")[index] for i in range(len(task[f"{side}s"])))
        return [torch.from_numpy(array) for array in loaded]

    return Rows(arrays("input"), [target.float() for target in arrays("output")])


def _check_shapes(task: dict[str, Any], student: Any, rows: Any, shapes: list[tuple[int, ...]]) -> None:
    """Refuse a student whose raw outputs are not as the teacher's.

    Raises:
        UsageError: says which output has which shape.
    """
    import torch
    from loop import as_tuple
    from students import UsageError

    few = rows.take(torch.arange(min(2, len(rows))))
    with torch.no_grad():
        raw = as_tuple(student(*few.inputs))
    if len(raw) != len(shapes):
        raise UsageError(f"the student gives {len(raw)} outputs, the teacher {len(shapes)}")
    for output, got, want in zip(task["outputs"], raw, shapes, strict=True):
        if tuple(got.shape) != (len(few), *want):
            raise UsageError(
                f"the student gives {list(got.shape)} for output '{output['name']}', it must be {[len(few), *want]}"
            )


def _served(task: dict[str, Any], student: Any, teaching: Any) -> Any:
    """The student as it is exported: outputs finished, in the teacher's datatypes."""
    import torch
    from loop import as_tuple

    kinds = {"FP16": torch.float16, "FP32": torch.float32, "FP64": torch.float64}

    class Served(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.student = student

        def forward(self, *inputs: Any) -> Any:
            answers = teaching.answers(as_tuple(self.student(*inputs)))
            return tuple(
                answer.to(kinds[output["datatype"]]) for answer, output in zip(answers, task["outputs"], strict=True)
            )

    return Served().eval()


def _answer(task: dict[str, Any], served: Any, rows: Any, folder: Path) -> None:
    import torch

    with torch.no_grad():
        parts = [served(*rows.take(index).inputs) for index in torch.arange(len(rows)).split(task["batch"])]
    for index in range(len(task["outputs"])):
        np.save(folder / f"answer-{index}.npy", torch.cat([part[index] for part in parts]).numpy())


def _export(task: dict[str, Any], served: Any, rows: Any, path: Path) -> None:
    """Write the graph with the teacher's names; its variable dimensions stay variable."""
    import torch

    variable = [[axis for axis, size in enumerate(spec["shape"]) if size < 0] for spec in task["inputs"]]
    shapes = [{axis: "batch" if axis == 0 else torch.export.Dim.DYNAMIC for axis in axes} for axes in variable]
    example = rows.take(torch.arange(2 if 0 in shapes[0] else 1))
    program = torch.onnx.export(
        served,
        tuple(example.inputs),
        input_names=[spec["name"] for spec in task["inputs"]],
        output_names=[spec["name"] for spec in task["outputs"]],
        dynamic_shapes=(tuple(shapes),),
        dynamo=True,
        verbose=False,
    )
    path.write_bytes(_plain(program.model_proto).SerializeToString())


def _plain(model: Any) -> Any:
    """Without the exporter's notes on every node: they hold paths of this machine and weigh more than the weights."""
    graph = model.graph
    for part in (model, graph, *graph.node, *graph.value_info, *graph.input, *graph.output):
        del part.metadata_props[:]
        part.ClearField("doc_string")
    return model


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
