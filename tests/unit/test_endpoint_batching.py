"""Dynamic batching: which requests run together, who is harmed by a bad one, and models that must not be batched."""

import logging
import re
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

import models
from sampan.contract.errors import InvalidInputError, UnavailableError
from sampan.contract.manifest import Golden
from sampan.contract.tensors import Array, Signature, Tensors, TensorSpec
from sampan.serving.endpoint.batching import Batcher, batchable, worthwhile
from sampan.serving.endpoint.model import EndpointModel
from sampan.serving.endpoint.settings import EndpointSettings
from sampan.serving.golden import Sample
from sampan.serving.repository import load
from sampan.serving.session import OnnxSession
from sampan.store import LocalStore
from sampan.store.add import add_model

LIMIT = 20  # seconds that anything may take
HELD = 4096
FOREVER = 1e6  # a delay in ms that no test waits for
GOLDEN = Golden(file="golden.npz", count=2, source="given")


class Doubling:
    """y = 2x and z = x, refusing negative numbers; remembers the rows of each run. `HELD` waits for the gate."""

    signature = Signature((TensorSpec("x", "FP32", (-1, -1)),), (TensorSpec("y", "FP32", (-1, -1)),))

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.gate = threading.Event()

    def run(self, inputs: Tensors, outputs: list[str] | None = None) -> dict[str, Array]:
        self.sizes.append(len(inputs["x"]))
        if (inputs["x"] == HELD).any():
            assert self.gate.wait(LIMIT)
        if (inputs["x"] < 0).any():
            raise InvalidInputError("a negative number")
        answer = {"y": inputs["x"] * 2, "z": inputs["x"]}
        return {name: answer[name] for name in outputs or answer}


class Several:
    """Requests at the same time, each from a thread of its own."""

    def __init__(self, batcher: Batcher) -> None:
        self.batcher = batcher
        self._pool = ThreadPoolExecutor(64)

    def ask(self, inputs: Array, outputs: list[str] | None = None) -> "Future[dict[str, Array]]":
        return self._pool.submit(self.batcher.run, {"x": inputs}, outputs)

    def queued(self, *inputs: Array) -> "list[Future[dict[str, Array]]]":
        """Requests that wait, in this order."""
        asked = []
        for array in inputs:
            before = self.batcher.waiting
            asked.append(self.ask(array))
            until(lambda count=before: self.batcher.waiting > count)
        return asked

    def end(self) -> None:
        self.batcher.close()
        self._pool.shutdown()


def until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + LIMIT
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.0005)


def row(value: float, width: int = 1, rows: int = 1) -> Array:
    return np.full((rows, width), value, np.float32)


@pytest.fixture
def held() -> Doubling:
    return Doubling()


@pytest.fixture
def several() -> Iterator[Callable[..., Several]]:
    made: list[tuple[Several, tuple[Any, ...]]] = []

    def make(*sessions: Any, batch: int = 4, delay_ms: float = 0.0) -> Several:
        made.append((Several(Batcher(sessions, batch, delay_ms)), sessions))
        return made[-1][0]

    yield make
    for asks, sessions in made:
        for session in sessions:
            session.gate.set()
        asks.end()


def busy(asks: Several, *sessions: Doubling, rows: int = 1) -> "Future[dict[str, Array]]":
    """A request that holds one of the sessions."""
    runs = sum(len(session.sizes) for session in sessions)
    first = asks.ask(row(HELD, rows=rows))
    until(lambda: sum(len(session.sizes) for session in sessions) > runs)
    return first


# --- which requests run together -------------------------------------------------------------------------------


def test_what_waits_runs_together_and_everyone_gets_his_own(several: Callable[..., Several], held: Doubling):
    asks = several(held, batch=8)
    first = busy(asks, held)
    others = asks.queued(row(1), row(2, rows=2), row(3))
    held.gate.set()
    answers = [future.result(LIMIT)["y"] for future in (first, *others)]
    assert held.sizes == [1, 4]
    assert [answer.tolist() for answer in answers] == [[[2 * HELD]], [[2]], [[4], [4]], [[6]]]
    assert all(answer.flags.c_contiguous for answer in answers)


def test_no_more_rows_than_a_batch(several: Callable[..., Several], held: Doubling):
    asks = several(held, batch=4)
    busy(asks, held)
    waiting = asks.queued(*(row(number) for number in range(6)), row(6, rows=3), row(7, rows=4), row(8, rows=5))
    held.gate.set()
    for number, future in enumerate(waiting):
        assert future.result(LIMIT)["y"][0, 0] == 2 * number
    assert held.sizes[0] == 1
    assert held.sizes[1:] == [4, 2, 3, 4, 5]


def test_requests_without_rows_run_alone(several: Callable[..., Several], held: Doubling):
    asks = several(held)
    busy(asks, held)
    waiting = asks.queued(row(0, rows=0), row(0, rows=0), row(1))
    held.gate.set()
    assert [future.result(LIMIT)["y"].shape for future in waiting] == [(0, 1), (0, 1), (1, 1)]
    assert held.sizes == [1, 0, 0, 1]


def test_other_shapes_and_other_outputs_run_apart(several: Callable[..., Several], held: Doubling):
    asks = several(held)
    busy(asks, held)
    narrow, wide, again = asks.queued(row(1), row(1, width=2), row(2))
    asked = [asks.ask(row(3), ["z"]), asks.ask(row(4), ["z"])]
    until(lambda: asks.batcher.waiting == 5)
    held.gate.set()
    assert [future.result(LIMIT)["y"].shape for future in (narrow, wide, again)] == [(1, 1), (1, 2), (1, 1)]
    assert [list(future.result(LIMIT)) for future in asked] == [["z"], ["z"]]
    assert held.sizes == [1, 2, 1, 2]


def test_a_full_batch_waits_for_nobody(several: Callable[..., Several]):
    sessions = Doubling(), Doubling()
    asks = several(*sessions, batch=3, delay_ms=FOREVER)
    busy(asks, *sessions)
    answers = [future.result(LIMIT)["y"][0, 0] for future in [asks.ask(row(number)) for number in range(3)]]
    assert answers == [0, 2, 4]
    assert sorted(session.sizes for session in sessions) == [[1], [3]]


def test_a_full_batch_does_not_wait_behind_one_that_gathers(several: Callable[..., Several]):
    sessions = Doubling(), Doubling()
    asks = several(*sessions, batch=2, delay_ms=FOREVER)
    busy(asks, *sessions)
    (gathering,) = asks.queued(row(1, width=7))
    pair = [asks.ask(row(2)), asks.ask(row(3))]
    assert [future.result(LIMIT)["y"][0, 0] for future in pair] == [4, 6]
    assert not gathering.done()


def test_another_worker_watches_what_the_first_left(several: Callable[..., Several]):
    sessions = Doubling(), Doubling(), Doubling()
    asks = several(*sessions, batch=2, delay_ms=30.0)
    busy(asks, *sessions)
    gathering = asks.ask(row(1, width=7))
    pair = [asks.ask(row(HELD)), asks.ask(row(HELD))]
    assert gathering.result(LIMIT)["y"].shape == (1, 7)
    assert not any(future.done() for future in pair)


def test_a_request_with_no_other_under_way_does_not_wait(several: Callable[..., Several]):
    asks = several(Doubling(), delay_ms=FOREVER)
    for number in range(3):
        assert asks.ask(row(number)).result(LIMIT)["y"] == 2 * number


def test_a_request_waits_for_others_no_longer_than_the_delay(several: Callable[..., Several]):
    sessions = Doubling(), Doubling()
    asks = several(*sessions, delay_ms=30.0)
    busy(asks, *sessions)
    start = time.monotonic()
    assert asks.ask(row(1)).result(LIMIT)["y"] == 2
    assert 0.03 <= time.monotonic() - start < LIMIT / 2


def test_sessions_run_at_the_same_time(several: Callable[..., Several]):
    barrier = threading.Barrier(3)

    class Meeting(Doubling):
        def run(self, inputs: Tensors, outputs: list[str] | None = None) -> dict[str, Array]:
            barrier.wait(LIMIT)
            return super().run(inputs, outputs)

    asks = several(Meeting(), Meeting(), Meeting(), batch=1)
    assert [future.result(LIMIT)["y"].item() for future in [asks.ask(row(n)) for n in range(3)]] == [0, 2, 4]


def test_many_requests_by_many_threads_are_all_answered(several: Callable[..., Several]):
    sessions = [Doubling() for _ in range(3)]
    asks = several(*sessions, batch=5, delay_ms=0.2)
    futures = [(number, asks.ask(row(number, width=1 + number % 3, rows=number % 7))) for number in range(600)]
    for number, future in futures:
        assert future.result(LIMIT)["y"].tolist() == row(2 * number, 1 + number % 3, number % 7).tolist()
    assert sum(sum(session.sizes) for session in sessions) == sum(number % 7 for number in range(600))


# --- errors and the end ----------------------------------------------------------------------------------------


def test_a_bad_request_harms_only_itself(several: Callable[..., Several], held: Doubling):
    asks = several(held)
    busy(asks, held)
    good, bad, fine = asks.queued(row(1), row(-1), row(3))
    held.gate.set()
    with pytest.raises(InvalidInputError, match="negative"):
        bad.result(LIMIT)
    assert [future.result(LIMIT)["y"].item() for future in (good, fine)] == [2, 6]
    assert held.sizes == [1, 3, 1, 1, 1]
    assert asks.ask(row(5)).result(LIMIT)["y"] == 10


def test_an_output_without_the_rows_that_went_in_is_not_shared_out(several: Callable[..., Several]):
    class Sum(Doubling):
        def run(self, inputs: Tensors, outputs: list[str] | None = None) -> dict[str, Array]:
            return {"y": super().run(inputs)["y"].sum(axis=0, keepdims=True)}

    session = Sum()
    asks = several(session)
    busy(asks, session)
    waiting = asks.queued(row(1), row(2))
    session.gate.set()
    assert [future.result(LIMIT)["y"].item() for future in waiting] == [2, 4]


def test_what_the_model_refuses_alone_is_refused_as_ever(tmp_path: Path):
    batcher = Batcher([opened(models.linear(), tmp_path)], 4, 0.0)
    with pytest.raises(InvalidInputError, match="cannot run"):
        batcher.run({"x": np.ones((1, 9), np.float32)})
    with pytest.raises(InvalidInputError):
        batcher.run({})
    batcher.close()


def test_close_answers_what_waits_and_ends_the_threads(several: Callable[..., Several], held: Doubling):
    asks = several(held, delay_ms=FOREVER)
    first = busy(asks, held, rows=4)
    waiting = asks.queued(row(1), row(2, width=3))
    closing = threading.Thread(target=asks.batcher.close)
    closing.start()
    held.gate.set()
    closing.join(LIMIT)
    assert not closing.is_alive()
    assert [future.result(LIMIT)["y"].shape for future in (first, *waiting)] == [(4, 1), (1, 1), (1, 3)]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("batch-")]
    with pytest.raises(UnavailableError, match="unloaded"):
        asks.batcher.run({"x": row(1)})


# --- real sessions ---------------------------------------------------------------------------------------------


def opened(model: onnx.ModelProto, folder: Path) -> OnnxSession:
    return OnnxSession(models.save(model, folder / "model.onnx"), threads=1)


class Recording:
    """A session that remembers the rows of each run, and runs once its gate is open."""

    def __init__(self, session: OnnxSession) -> None:
        self.signature, self._session, self.sizes = session.signature, session, list[int]()
        self.gate = threading.Event()

    def run(self, inputs: Tensors, outputs: list[str] | None = None) -> dict[str, Array]:
        self.sizes.append(len(next(iter(inputs.values()))))
        assert self.gate.wait(LIMIT)
        return self._session.run(inputs, outputs)


def gathered(asks: Several, session: Recording, arrays: list[Array]) -> list[dict[str, Array]]:
    """Answers of requests that all came while the first was running."""
    first = asks.ask(arrays[0])
    until(lambda: bool(session.sizes))
    futures = [first, *asks.queued(*arrays[1:])]
    session.gate.set()
    return [future.result(LIMIT) for future in futures]


def test_batched_answers_are_the_unbatched_ones(several: Callable[..., Several], tmp_path: Path):
    alone = opened(models.classifier(), tmp_path)
    session = Recording(alone)
    rows = normal(30, 1, 64)
    for one, answer in zip(rows, gathered(several(session, batch=8), session, rows), strict=True):
        want = alone.run({"x": one})["probabilities"]
        np.testing.assert_allclose(answer["probabilities"], want, rtol=1e-5, atol=1e-7)
    assert session.sizes == [1, 8, 8, 8, 5]


def test_texts_are_batched_too(several: Callable[..., Several], tmp_path: Path):
    session = Recording(opened(models.identity("BYTES"), tmp_path))
    texts = [np.array([text], object) for text in (b"one", b"two", b"three")]
    assert [answer["y"].tolist() for answer in gathered(several(session), session, texts)] == [*map(list, texts)]
    assert session.sizes == [1, 2]


# --- what may be batched ---------------------------------------------------------------------------------------


def samples(session: OnnxSession, *arrays: Array) -> list[Sample]:
    return [Sample({"x": array}, session.run({"x": array})) for array in arrays]


def normal(count: int, *shape: int) -> list[Array]:
    random = np.random.default_rng(0)
    return [random.normal(size=shape).astype(np.float32) for _ in range(count)]


def minus_mean() -> onnx.ModelProto:
    """y = x - mean of x over the batch."""
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["mean"], axes=[0], keepdims=1),
        helper.make_node("Sub", ["x", "mean"], ["y"]),
    ]
    return models.build(nodes, [("x", "FP32", ("n", 4))], [("y", "FP32", ("n", 4))])


def one_scale() -> onnx.ModelProto:
    """y = x in 8 bits and back, with one scale for all rows, as dynamically quantised models have it."""
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "scale", "zero"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["y"]),
    ]
    return models.build(nodes, [("x", "FP32", ("n", 4))], [("y", "FP32", ("n", 4))])


def first_row() -> onnx.ModelProto:
    """y = first row of x."""
    nodes = [helper.make_node("Compress", ["x", "first"], ["y"], axis=0)]
    return models.build(nodes, [("x", "FP32", ("n", 4))], [("y", "FP32", ("m", 4))], {"first": np.array([True])})


def single_row() -> onnx.ModelProto:
    """y = x, of one row; more are refused."""
    nodes = [
        helper.make_node("Squeeze", ["x", "axis"], ["row"]),
        helper.make_node("Unsqueeze", ["row", "axis"], ["rows"]),
        helper.make_node("Compress", ["rows", "all"], ["y"], axis=0),
    ]
    constants = {"axis": np.array([0]), "all": np.array([True])}
    return models.build(nodes, [("x", "FP32", ("n", 4))], [("y", "FP32", ("m", 4))], constants)


@pytest.mark.parametrize("model", [models.linear, partial(models.convolution, size=4)])
def test_rows_that_stand_alone_may_be_batched(model: Callable[[], onnx.ModelProto], tmp_path: Path):
    session = opened(model(), tmp_path)
    name, shape = session.signature.inputs[0].name, [abs(size) for size in session.signature.inputs[0].shape]
    golden = [Sample({name: array}, {}) for array in normal(3, *shape)]
    assert batchable(session, golden, GOLDEN, 16) == ""


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (minus_mean, "the rows beside it change a row's answer: output 'y' differs"),
        (one_scale, "the rows beside it change a row's answer: output 'y' differs"),
        (single_row, "cannot run together: the model cannot run on these inputs"),
        (first_row, r"cannot run together: output 'y' is \[1, 4\] for 2 rows"),
    ],
)
def test_rows_that_change_each_other_are_found_out(model: Callable[[], onnx.ModelProto], reason: str, tmp_path: Path):
    session = opened(model(), tmp_path)
    found = batchable(session, samples(session, *normal(3, 1, 4)), GOLDEN, 16)
    assert re.search(reason, found), found


def test_one_scale_for_all_is_found_out_among_rows_of_equal_scale(tmp_path: Path):
    session = opened(one_scale(), tmp_path)
    rows = [np.array([[-1, 0.2, 0.3, 1]], np.float32), np.array([[-1, 0.7, 0.1, 1]], np.float32)]
    assert "change a row's answer" in batchable(session, samples(session, *rows), GOLDEN, 16)


def test_a_first_dimension_that_counts_no_rows(tmp_path: Path):
    model = models.identity("FP32", (2, "n", 8))
    session = opened(model, tmp_path)
    assert "'x' has the shape [2, -1, 8]" in batchable(session, samples(session, *normal(2, 2, 1, 8)), GOLDEN, 16)


@pytest.mark.parametrize(
    "arrays",
    [[], normal(1, 1, 4), normal(1, 1, 4) * 3, [*normal(1, 1, 4), *normal(1, 2, 4)], normal(2, 9, 4)],
    ids=["none", "one", "copies", "other shapes", "too large"],
)
def test_nothing_is_proven_by_too_few_samples(arrays: list[Array], tmp_path: Path):
    session = opened(models.linear(), tmp_path)
    assert "nothing proves it" in batchable(session, samples(session, *arrays), GOLDEN, 16)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Slow:
    """Takes its time by rows, in seconds, as a clock of its own says."""

    signature = Doubling.signature

    def __init__(self, clock: Clock, first: float, each: float) -> None:
        self._clock, self._first, self._each = clock, first, each

    def run(self, inputs: Tensors, outputs: list[str] | None = None) -> dict[str, Array]:
        self._clock.now += self._first + self._each * len(inputs["x"])
        return {"y": inputs["x"]}


@pytest.mark.parametrize(("first", "each", "won"), [(0.010, 0.001, True), (0.0, 0.010, False), (0.0001, 0.010, False)])
def test_a_batch_that_is_no_quicker_is_none(first: float, each: float, won: bool):
    clock = Clock()
    found = worthwhile(Slow(clock, first, each), [Sample({"x": row(n)}, {}) for n in range(3)], 16, clock)
    assert (found == "") is won
    if not won:
        assert re.fullmatch(r"a row takes 10 ms in a batch of 16 and 10\S* ms alone, so too little is won", found)


# --- a served model --------------------------------------------------------------------------------------------


def version(tmp_path: Path, model: onnx.ModelProto) -> Path:
    """A version's folder, with golden samples of four rows."""
    np.savez(tmp_path / "samples.npz", x=np.concatenate(normal(4, 1, 4)))
    store = LocalStore(tmp_path / "store")
    return add_model(
        store, models.save(model, tmp_path / "m.onnx"), name="m", samples=tmp_path / "samples.npz"
    ).version.folder


def test_a_served_model_says_how_it_runs(tmp_path: Path):
    model = EndpointModel(version(tmp_path, models.linear()), settings=EndpointSettings(batch=8, sessions=2))
    assert model.details() == {}
    assert not model.ready
    model.open()
    assert model.details() == {
        "parameters": {
            "execution_provider": "CPUExecutionProvider",
            "batch": 8,
            "batch_delay_ms": 2.0,
            "sessions": 2,
            "warnings": [],
        }
    }
    x = {"x": np.ones((1, 4), np.float32)}
    np.testing.assert_allclose(model.infer(x)["y"], OnnxSession(model.folder / "model.onnx").run(x)["y"], rtol=1e-5)
    model.close()
    assert not model.ready


def test_a_model_that_mixes_rows_is_served_without_batching(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO)
    model = EndpointModel(version(tmp_path, minus_mean()), settings=EndpointSettings())
    assert isinstance(model.open(), OnnxSession)
    assert model.details()["parameters"]["batch"] == 0
    assert "batching is off: the rows beside it" in model.details()["parameters"]["warnings"][0]
    assert "m:1 runs without batching: the rows beside it change a row's answer" in caplog.text
    model.close()


def test_without_golden_samples_nothing_is_batched(tmp_path: Path):
    folder = version(tmp_path, models.linear())
    (folder / "golden.npz").unlink()
    model = EndpointModel(folder, settings=EndpointSettings(sessions=2))
    assert isinstance(model.open(), Batcher)
    assert "without golden samples" in model.details()["parameters"]["warnings"][0]
    model.close()


def test_a_repository_proves_and_warms_batched_models(tmp_path: Path):
    folder = version(tmp_path, models.linear())
    make = partial(EndpointModel, settings=EndpointSettings())
    repository = load([folder], golden=4, warm=True, verify=True, make=make)
    model = repository.default()
    assert isinstance(model, EndpointModel)
    assert isinstance(model.session, Batcher)
    model.close()
