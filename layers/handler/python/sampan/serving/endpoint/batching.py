"""Dynamic batching: requests that wait at the same time run as one, on one of several sessions.

    run → group of requests that fit together → a worker's session → rows of its own for each request

A group takes requests whose inputs are equal in all but the first dimension, until it has as many rows as a batch
may have. A group is due when it is full or its first request has waited long enough; a worker runs the oldest one
that is due. While all workers run, groups grow by themselves. A request that finds no other under way waits for
nobody. A model's answer for a row must not depend on the rows beside it, and a batch must be quicker than its rows one
by one: only where `batchable` and `worthwhile` have nothing to say may a `Batcher` have more than one row a batch.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np

from sampan.contract.errors import InvalidInputError, ModelError, UnavailableError
from sampan.contract.manifest import Golden
from sampan.contract.tensors import Array, Signature, Tensors
from sampan.serving.golden import Sample, difference
from sampan.serving.session import Session

WORTH = 0.9  # of the time that rows take one by one, which a batch of them may take
LOUD = 8  # how many times larger a row's floats are made, to see whether the rows beside it change
_SHAPES = 4  # shapes of golden samples that are tried together
_TIMED = 0.5  # seconds that are spent on timing, but for the first round
_ALONE: Hashable = None  # key of what runs by itself
_log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class _Request:
    inputs: Tensors
    outputs: list[str] | None
    rows: int
    answer: "Future[dict[str, Array]]" = field(default_factory=Future)


@dataclass(slots=True, eq=False)
class _Group:
    """Requests that run together; takes more of them while `Batcher._open` has it under its key."""

    key: Hashable
    deadline: float
    requests: list[_Request] = field(default_factory=list)
    rows: int = 0


class Batcher:
    """Several sessions of one model behind one queue; itself a `Session`. Safe to call from many threads.

    Args:
        sessions: each belongs to a thread of its own.
        batch: most rows that run together; 1 gathers nothing.
        delay_ms: longest time that a request waits for others, in ms; 0 gathers only what waits already.
    """

    def __init__(self, sessions: Sequence[Session], batch: int, delay_ms: float) -> None:
        self.signature: Signature = sessions[0].signature
        self._batch = batch
        self._delay = delay_ms / 1000
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._groups: deque[_Group] = deque()  # the oldest first; no worker has them yet
        self._open: dict[Hashable, _Group] = {}  # groups that take more
        self._under_way = 0
        self._closed = False
        self._workers = [
            threading.Thread(target=self._work, args=(session,), name=f"batch-{number}", daemon=True)
            for number, session in enumerate(sessions)
        ]
        for worker in self._workers:
            worker.start()

    @property
    def waiting(self) -> int:
        """Requests that no session has yet."""
        with self._lock:
            return sum(len(group.requests) for group in self._groups)

    def run(self, inputs: Tensors, outputs: list[str] | None = None) -> dict[str, Array]:
        """Run the graph, together with what else waits.

        Raises:
            InvalidInputError: the graph refuses these values.
            UnavailableError: the model is being closed.
        """
        key, rows = self._kind(inputs, outputs)
        request = _Request(inputs, outputs, rows)
        with self._lock:
            if self._closed:
                raise UnavailableError("the model is being unloaded; try again in a second")
            self._under_way += 1
            self._place(key, request)
        try:
            return request.answer.result()
        finally:
            with self._lock:
                self._under_way -= 1

    def close(self) -> None:
        """Answer what waits, then end the threads."""
        with self._lock:
            self._closed = True
            self._changed.notify_all()
        for worker in self._workers:
            worker.join()

    def _kind(self, inputs: Tensors, outputs: list[str] | None) -> tuple[Hashable, int]:
        """What requests that fit together have in common, and the rows of this one."""
        rows = _rows(inputs)
        if not 0 < rows < self._batch:
            return _ALONE, rows
        shapes = tuple((name, inputs[name].dtype.str, inputs[name].shape[1:]) for name in sorted(inputs))
        return (shapes, None if outputs is None else tuple(outputs)), rows

    def _place(self, key: Hashable, request: _Request) -> None:
        """Put a request into the group of its kind, else into a new one. The lock is held."""
        group = self._open.get(key)
        if group is not None and group.rows + request.rows > self._batch:
            self._seal(group)
            group = None
        if group is None:
            patience = self._delay if self._under_way > 1 else 0.0
            group = _Group(key, time.monotonic() + patience)
            self._groups.append(group)
            if key is not _ALONE:
                self._open[key] = group
            self._changed.notify()
        group.requests.append(request)
        group.rows += request.rows
        if group.rows >= self._batch:
            self._seal(group)

    def _seal(self, group: _Group) -> None:
        """No more for this group; the lock is held."""
        if self._open.get(group.key) is group:
            del self._open[group.key]
            self._changed.notify()

    def _work(self, session: Session) -> None:
        while requests := self._next():
            _answer(session, requests)
            del requests  # their tensors need not stay until the next come

    def _next(self) -> list[_Request]:
        """The oldest group that is due, as soon as there is one; none at the end."""
        with self._lock:
            while (group := self._due()) is None:
                if self._closed:
                    return []
                self._changed.wait(self._groups[0].deadline - time.monotonic() if self._groups else None)
            self._groups.remove(group)
            self._seal(group)
            if self._groups:
                self._changed.notify()  # another worker watches over what is left
            return group.requests

    def _due(self) -> _Group | None:
        now = time.monotonic()
        due = (g for g in self._groups if self._closed or g.deadline <= now or self._open.get(g.key) is not g)
        return next(due, None)


def _rows(inputs: Tensors) -> int:
    """First dimension of all inputs; 0 where they have none in common."""
    sizes = {array.shape[0] if array.ndim else 0 for array in inputs.values()}
    return sizes.pop() if len(sizes) == 1 else 0


def _answer(session: Session, requests: list[_Request]) -> None:
    """Give each request its answer; where they cannot run together, each runs alone, so that one harms only itself."""
    if len(requests) > 1:
        try:
            answers = _together(session, [request.inputs for request in requests], requests[0].outputs)
        except Exception as error:  # whatever it is, it comes again below for the request that it belongs to
            _log.info("%d requests run one by one, as they cannot run together: %s", len(requests), error)
            answers = []
        if answers:
            for request, answer in zip(requests, answers, strict=True):
                request.answer.set_result(answer)
            return
    for request in requests:
        try:
            request.answer.set_result(session.run(request.inputs, request.outputs))
        except BaseException as error:  # it belongs to the thread that asked
            request.answer.set_exception(error)


def _together(session: Session, parts: Sequence[Tensors], outputs: list[str] | None) -> list[dict[str, Array]]:
    """Answers of several inputs from one run: views of its outputs, each the rows of its own.

    Raises:
        InvalidInputError: the graph refuses these values.
        ModelError: an output has not one row for each row that went in.
    """
    found = session.run(_stacked(parts), outputs)
    ends = np.cumsum([_rows(part) for part in parts]).tolist()
    for name, array in found.items():
        if array.ndim == 0 or array.shape[0] != ends[-1]:
            raise ModelError(f"output '{name}' is {list(array.shape)} for {ends[-1]} rows")
    starts = [0, *ends[:-1]]
    return [{name: array[start:end] for name, array in found.items()} for start, end in zip(starts, ends, strict=True)]


def _stacked(parts: Sequence[Tensors]) -> Tensors:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def batchable(session: Session, samples: Sequence[Sample], golden: Golden, batch: int) -> str:
    """Why requests for a model cannot run together; empty where golden samples prove that they can.

    A model may mix rows (a mean over the batch, one scale of dynamic quantisation for all), or have a first dimension
    that counts something else (an LSTM's layers). So samples run together: pairs of several shapes, a whole batch, and
    one beside another whose floats are `LOUD` times larger. Each must answer as it does alone, within the tolerance
    of the golden samples.
    """
    everything = (*session.signature.inputs, *session.signature.outputs)
    fixed = next((spec for spec in everything if spec.shape[:1] != (-1,)), None)
    if fixed is not None:
        return f"'{fixed.name}' has the shape {list(fixed.shape)}, whose first dimension counts no rows of a batch"
    kinds = _kinds(samples, batch)
    if not kinds:
        return f"no two different golden samples of one shape fit into a batch of {batch} rows, so nothing proves it"
    try:
        found = (_difference(session, parts, judged, golden) for parts, judged in _trials(kinds, batch))
        return next(filter(None, found), "")
    except (InvalidInputError, ModelError) as error:
        return f"golden samples cannot run together: {error}"


def worthwhile(
    session: Session, samples: Sequence[Sample], batch: int, clock: Callable[[], float] = time.perf_counter
) -> str:
    """Why a batch wins too little, by the shortest of some times; empty where it does.

    A dense layer reads its weights once for all rows, which is most of its time; the features of convolutions may no
    longer fit into a CPU's caches, which makes each row slower.
    """
    rows = _kinds(samples, batch)[0]
    one = rows[0]
    many = _stacked([rows[number % len(rows)] for number in range(batch // _rows(one))])

    def seconds_a_row(inputs: Tensors) -> float:
        start = clock()
        session.run(inputs)
        return (clock() - start) / _rows(inputs)

    times: list[tuple[float, float]] = []
    end = clock() + _TIMED
    while not times or clock() < end:
        times.append((seconds_a_row(one), seconds_a_row(many)))
    alone, together = (min(column) * 1000 for column in zip(*times, strict=True))
    if together <= WORTH * alone:
        return ""
    return f"a row takes {together:.3g} ms in a batch of {_rows(many)} and {alone:.3g} ms alone, so too little is won"


def _kinds(samples: Sequence[Sample], batch: int) -> list[list[Tensors]]:
    """Different inputs by their shapes, the most frequent shape first; none that is alone with its shape."""
    kinds: dict[Hashable, list[Tensors]] = {}
    for sample in samples:
        if 0 < 2 * _rows(sample.inputs) <= batch:
            same = kinds.setdefault(tuple(array.shape for array in sample.inputs.values()), [])
            if len(same) < batch and not any(_equal(sample.inputs, other) for other in same):
                same.append(sample.inputs)
    several = [same for same in kinds.values() if len(same) > 1]
    return sorted(several, key=len, reverse=True)[:_SHAPES]


def _equal(one: Tensors, other: Tensors) -> bool:
    return all(np.array_equal(array, other[name]) for name, array in one.items())


def _trials(kinds: list[list[Tensors]], batch: int) -> Iterator[tuple[list[Tensors], int]]:
    """Inputs to run together, and how many of them, from the first, are judged."""
    for one, other, *_ in kinds:
        yield [one, other], 2
        if any(array.dtype.kind == "f" for array in other.values()):
            yield [one, _louder(other)], 1
    most = kinds[0]
    yield [most[number % len(most)] for number in range(batch // _rows(most[0]))], len(most)


def _louder(inputs: Tensors) -> Tensors:
    with np.errstate(over="ignore"):
        return {
            name: array * array.dtype.type(LOUD) if array.dtype.kind == "f" else array for name, array in inputs.items()
        }


def _difference(session: Session, parts: list[Tensors], judged: int, golden: Golden) -> str:
    """What changes in the answer of the first of the judged that changes; its own copies beside it tell why."""
    for part, answer in zip(parts, _together(session, parts, None)[:judged], strict=False):
        text = difference(session.run(part), answer, golden)
        if text and difference(_together(session, [part] * len(parts), None)[0], answer, golden):
            return f"the rows beside it change a row's answer: {text}"
        if text:
            return f"a batch rounds its numbers differently from a row alone: {text}"
    return ""
