"""Two versions side by side: operators, sizes, parameters by datatype, load, latency, and how the answers differ.

    A, B → same signature → golden inputs of A → A's answers and B's → load (fresh processes) → paired latency

Nothing is registered. Both versions run on one thread, as they would in a report.
"""

import statistics
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import onnx

from sampan.compress import isolated
from sampan.compress.distribution import distributions
from sampan.compress.graph import graphs, load
from sampan.compress.report import Distribution, machine
from sampan.compress.tasks import Latency, LoadResult, LoadTask, RunTask
from sampan.compress.worker import check_signature
from sampan.contract.errors import InvalidInputError, ModelError
from sampan.contract.manifest import GateEntry
from sampan.contract.metrics import measure
from sampan.contract.tensors import DATATYPES, Tensors
from sampan.serving.golden import Sample, read_golden, write_golden
from sampan.serving.packed import is_packed
from sampan.store import Store, Version
from sampan.store.proof import open_session

SCHEMA = 1
DATATYPE_NAMES = {datatype.onnx: datatype.name for datatype in DATATYPES.values()}


class Side(msgspec.Struct, frozen=True, kw_only=True):
    """One of the two versions. `parameters` counts the values of its weights by datatype; sizes in bytes."""

    ref: str
    digest: str
    size: int
    operators: dict[str, int]
    parameters: dict[str, int]
    load_ms: float
    peak_bytes: int
    recipe: str = ""
    gates: list[GateEntry] = []


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """How B answers otherwise than A at one output, by the metrics of the same names; `errors` for floats only."""

    output: str
    max_abs_error: float
    relative_error: float
    cosine: float
    top1_agreement: float
    errors: Distribution | None = None


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """`latency` and all differences are B against A."""

    schema: int = SCHEMA
    a: Side
    b: Side
    latency: Latency
    outputs: list[Difference]
    samples: int
    samples_source: str
    machine: dict[str, Any]
    seed: int


def encode_comparison(comparison: Comparison) -> bytes:
    """The file's bytes: JSON with two-space indents; a value that is no number is null."""
    return msgspec.json.format(msgspec.json.encode(comparison), indent=2) + b"\n"


def compare(
    store: Store,
    first: str,
    second: str,
    *,
    seconds: float = 2.0,
    loads: int = 3,
    seed: int = 0,
    watch: Callable[[str, int, int], None] = lambda words, done, total: None,
) -> Comparison:
    """Compare two versions of one signature on the golden samples of the first.

    Args:
        first, second: references; A and B.
        seconds: of paired runs.
        loads: fresh processes that each version is loaded in; the median counts.
        seed: of the bootstrap.
        watch: told what happens: words, steps done, steps in all.

    Raises:
        InvalidInputError: the versions have different signatures.
        ModelError: A has no golden samples, or a version does not run.
        NotFoundError, StoreError: as their messages say.
    """
    a, b = store.find(first), store.find(second)
    _check_comparable(a, b)
    samples = a.golden()
    if not samples:
        raise ModelError(f"{a.ref} has no golden samples to compare on; add it again with --samples")
    with tempfile.TemporaryDirectory(prefix="sampan-compare-") as folder:
        place = Path(folder)
        _write(place / "samples.npz", samples)
        _write(place / "one.npz", samples[:1])
        watch("answers and latency", 0, 3)
        latency = _run(a, b, place, seconds, seed)
        outputs = _differences(_answers(a, samples), read_golden(place / "answers.npz"))
        watch(f"loading {a.ref}", 1, 3)
        loaded = _load(a, place, loads)
        watch(f"loading {b.ref}", 2, 3)
        sides = _side(a, loaded), _side(b, _load(b, place, loads))
    return Comparison(
        a=sides[0],
        b=sides[1],
        latency=latency,
        outputs=outputs,
        samples=len(samples),
        samples_source=a.manifest.golden.source,
        machine=machine(),
        seed=seed,
    )


def parameters(model: Path) -> dict[str, int]:
    """Values in the model's weights (initialisers and Constant nodes, subgraphs included) by V2 or ONNX datatype."""
    proto = load(model) if is_packed(model) else onnx.load_model(str(model), load_external_data=False)
    count: Counter[str] = Counter()
    for graph in graphs(proto.graph):
        constants = [attribute.t for node in graph.node if node.op_type == "Constant" for attribute in node.attribute]
        for tensor in (*graph.initializer, *constants):
            if tensor.data_type:
                count[_datatype(tensor.data_type)] += _values(tensor)
    return dict(count.most_common())


def _check_comparable(a: Version, b: Version) -> None:
    try:
        check_signature(a.manifest.signature, b.manifest.signature)
    except ModelError as error:
        raise InvalidInputError(
            f"{a.ref} and {b.ref} cannot be compared, as they have different signatures: "
            f"{error.message.replace('changed: ', 'differ: ').replace(' became ', ' and ')}"
        ) from error


def _answers(version: Version, samples: Sequence[Sample]) -> list[Tensors]:
    """What the version answers here and now, for the outputs that are recorded."""
    session = open_session(version, threads=1)
    answers = [session.run(sample.inputs) for sample in samples]
    return [{name: answer[name] for name in sample.outputs} for sample, answer in zip(samples, answers, strict=True)]


def _differences(truth: Sequence[Tensors], answered: Sequence[Sample]) -> list[Difference]:
    answers = [{name: sample.outputs[name] for name in want} for want, sample in zip(truth, answered, strict=True)]
    errors = {found.output: found for found in distributions(truth, answers)}
    return [
        Difference(
            output=output,
            max_abs_error=measure("max_abs_error", truth, answers, output).value,
            relative_error=measure("relative_error", truth, answers, output).value,
            cosine=measure("cosine", truth, answers, output).value,
            top1_agreement=measure("top1_agreement", truth, answers, output).value,
            errors=errors.get(output),
        )
        for output in truth[0]
    ]


def _run(a: Version, b: Version, place: Path, seconds: float, seed: int) -> Latency:
    task = RunTask(
        source=str(a.model_path),
        source_session=a.manifest.needs.session,
        model=str(b.model_path),
        session=b.manifest.needs.session,
        samples=str(place / "samples.npz"),
        outputs=str(place / "answers.npz"),
        seconds=seconds,
        seed=seed,
    )
    return isolated.perform(task, Latency, place, f"running {b.ref}")


def _load(version: Version, place: Path, times: int) -> LoadResult:
    task = LoadTask(
        model=str(version.model_path), session=version.manifest.needs.session, samples=str(place / "one.npz")
    )
    results = [isolated.perform(task, LoadResult, place, f"loading {version.ref}") for _ in range(times)]
    return LoadResult(
        load_ms=statistics.median(result.load_ms for result in results),
        peak_bytes=round(statistics.median(result.peak_bytes for result in results)),
    )


def _side(version: Version, loaded: LoadResult) -> Side:
    manifest = version.manifest
    return Side(
        ref=manifest.ref,
        digest=manifest.digest,
        size=manifest.size,
        operators=manifest.operators,
        parameters=parameters(version.model_path),
        load_ms=loaded.load_ms,
        peak_bytes=loaded.peak_bytes,
        recipe=str((manifest.recipe or {}).get("name", "")),
        gates=manifest.gates,
    )


def _write(path: Path, samples: Sequence[Sample]) -> None:
    with path.open("wb") as file:
        write_golden(file, samples)


def _datatype(code: int) -> str:
    return DATATYPE_NAMES.get(code) or str(onnx.TensorProto.DataType.Name(code))


def _values(tensor: onnx.TensorProto) -> int:
    count = 1
    for size in tensor.dims:
        count *= int(size)
    return count
