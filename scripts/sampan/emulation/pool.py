"""Instances of a function as Lambda keeps them: one event at a time each, more when more come, gone when they fail."""

import re
import threading
from collections.abc import Callable, Mapping
from typing import Any

from sampan.contract.errors import PayloadTooLargeError, SampanError
from sampan.emulation.instance import Instance, Invocation
from sampan.local.gateway import FunctionFailedError

CONCURRENCY = 10
_MODEL = re.compile(r"/models/([^/:]+)")


class ThrottledError(FunctionFailedError):
    """Raise when every instance is busy and no further one may be started."""

    status = 429


class TimedOutError(FunctionFailedError):
    """Raise when the function takes longer than its own limit."""


class Pool:
    """A handler for the local API Gateway, which calls it from many threads.

    Args:
        start: makes an instance; may take seconds.
        concurrency: most instances at a time.
        observe: hears of every invocation, with the instance that answered.
    """

    def __init__(
        self,
        start: Callable[[], Instance],
        *,
        concurrency: int = CONCURRENCY,
        observe: Callable[[Invocation, Instance], None] = lambda invocation, instance: None,
    ) -> None:
        self._start = start
        self._concurrency = concurrency
        self._observe = observe
        self._lock = threading.Lock()
        self._free: list[Instance] = []
        self._all: list[Instance] = []
        self._starting = 0
        self._closed = False

    @property
    def size(self) -> int:
        """Instances there are."""
        with self._lock:
            return len(self._all)

    def __call__(self, event: Mapping[str, Any], context: Any) -> dict[str, Any]:
        """The function's result, from the instance that was last used of the free ones.

        Raises:
            ThrottledError: over the concurrency.
            PayloadTooLargeError: an event over Lambda's limit.
            FunctionFailedError: the function, or its instance, failed.
        """
        instance = self._taken()
        keep = False
        try:
            invocation = instance.invoke(event)
            keep = invocation.failure is None or invocation.failure.kind == "error"
        except PayloadTooLargeError:
            keep = True
            raise
        except SampanError as error:
            raise FunctionFailedError(str(error)) from error
        finally:
            self._returned(instance, keep)
        self._observe(invocation, instance)
        return _result(invocation)

    def warm(self) -> None:
        """Start one instance ahead of the first request, so that what cannot start is said at once."""
        self._returned(self._taken(), keep=True)

    def close(self) -> None:
        """Stop every instance, busy or not."""
        with self._lock:
            self._closed = True
            instances, self._all, self._free = self._all, [], []
        for instance in instances:
            instance.stop()

    def _taken(self) -> Instance:
        with self._lock:
            if self._free:
                return self._free.pop()
            if self._closed or len(self._all) + self._starting >= self._concurrency:
                raise ThrottledError(
                    f"Rate Exceeded: all {self._concurrency} instances of the function are busy; "
                    "send less at a time, or raise --concurrency"
                )
            self._starting += 1
        try:
            instance = self._start()
        except SampanError as error:
            raise FunctionFailedError(str(error)) from error
        finally:
            with self._lock:
                self._starting -= 1
        with self._lock:
            if not self._closed:
                self._all.append(instance)
                return instance
        instance.stop()
        raise FunctionFailedError("the emulation is being stopped")

    def _returned(self, instance: Instance, keep: bool) -> None:
        with self._lock:
            if keep and not self._closed:
                self._free.append(instance)
                return
            if instance in self._all:
                self._all.remove(instance)
        instance.stop()


class Routed:
    """Functions behind one address: `…/models/{model}…` goes to the one that serves it, all else to the first.

    Args:
        pools: by the name of the model that they serve.
    """

    def __init__(self, pools: Mapping[str, Pool]) -> None:
        self._pools = dict(pools)

    def __call__(self, event: Mapping[str, Any], context: Any) -> dict[str, Any]:
        found = _MODEL.search(event.get("rawPath") or event.get("path") or "")
        pool = self._pools.get(found[1]) if found else None
        return (pool or next(iter(self._pools.values())))(event, context)

    def close(self) -> None:
        """Stop every instance of every function."""
        for pool in self._pools.values():
            pool.close()


def _result(invocation: Invocation) -> dict[str, Any]:
    failure, result = invocation.failure, invocation.result
    if failure is not None:
        raise (TimedOutError if failure.kind == "timeout" else FunctionFailedError)(failure.message)
    if not isinstance(result, dict) or not isinstance(result.get("statusCode"), int):
        raise FunctionFailedError("the function's result has no 'statusCode', so that API Gateway answers 502")
    return result
