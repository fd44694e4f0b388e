"""A session on an endpoint: tensors in, tensors out, as `OnnxSession`, but elsewhere.

    tensors → V2 binary → breaker → attempts, within the deadline → V2 binary → checked → tensors

An attempt is repeated where another may go well (`LaterError.again`), after an exponential wait with full jitter
(https://aws.amazon.com/builders-library/timeouts-retries-and-backoff-with-jitter/), never past the deadline. What the
endpoint is to blame for opens the breaker; what the request is to blame for does not.
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from random import SystemRandom

from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_attempt, stop_before_delay

from sampan.contract.errors import DeadlineError, PayloadTooLargeError, UnavailableError, UpstreamError
from sampan.contract.manifest import Manifest
from sampan.contract.tensors import Array, Tensors
from sampan.serving.codecs.v2_client import CONTENT_TYPE, InferResponse, content_type, decode_response, encode_request
from sampan.serving.remote.attempt import bounded
from sampan.serving.remote.breaker import Breaker
from sampan.serving.remote.client import EndpointClient, LaterError
from sampan.serving.remote.deadline import left
from sampan.serving.repository import Answer
from sampan.serving.settings import SAGEMAKER_PAYLOAD

ATTEMPTS = 3
FIRST_WAIT, LONGEST_WAIT = 0.2, 2.0  # seconds at most before the second attempt, before any
MARGIN = 0.5  # seconds of a call that are kept for what comes after the endpoint
DOWN = (UnavailableError, DeadlineError, UpstreamError)  # what the endpoint is to blame for
_TENSORS = "body of tensors for the endpoint (not what was sent here, but what the model takes)"
_random = SystemRandom()  # instances that come from one snapshot share the state of any other generator


class RemoteSession:
    """Runs the graph of a version on an endpoint, which may serve another version of the same interface.

    Args:
        manifest: of the version that this process stands before.
        sleep: waits some seconds.

    Attributes:
        margin: seconds of a call that are kept for what comes after the endpoint.
    """

    def __init__(
        self,
        manifest: Manifest,
        client: EndpointClient,
        breaker: Breaker,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.signature = manifest.signature
        self.margin = MARGIN
        self.client = client
        self.breaker = breaker
        self._manifest = manifest
        self._interface = manifest.interface
        self._sleep = sleep

    def run(self, inputs: Tensors, outputs: list[str] | None = None) -> dict[str, Array]:
        """The outputs alone, as `ask` gets them."""
        return self.ask(inputs, outputs).outputs

    def ask(self, inputs: Tensors, outputs: list[str] | None = None) -> Answer:
        """Run the graph on inputs that fit the signature; the answer's version is the one that the endpoint serves.

        Raises:
            PayloadTooLargeError: SageMaker does not carry as much; nothing is sent.
            UnavailableError: the endpoint does not answer now, or is not asked because it did not for a while.
            DeadlineError: it takes longer than the request has left.
            UpstreamError: it answers with something else than it should.
            RefusedError: it finds the request wrong.
        """
        body, header = encode_request(inputs, self.signature, outputs)
        if len(body) > SAGEMAKER_PAYLOAD:
            raise PayloadTooLargeError(_TENSORS, len(body), SAGEMAKER_PAYLOAD)
        seconds = left(self.margin)
        if seconds <= 0:
            raise DeadlineError(f"no time is left to ask endpoint '{self.client.name}'; give the function a longer one")
        with self._judged():
            answer, kind = self._attempts(body, content_type(header), seconds)
            response = self._read(answer, kind, outputs)
        return Answer(response.outputs, response.version)

    @contextmanager
    def _judged(self) -> Iterator[None]:
        """Let the breaker decide whether to ask, and tell it how that went."""
        wait = math.ceil(self.breaker.enter())
        if wait:
            text = f"endpoint '{self.client.name}' fails, and is asked again in {wait} s; {self.breaker.reason}"
            raise UnavailableError(text, wait)
        try:
            yield
        except BaseException as error:
            if isinstance(error, DOWN) and not (isinstance(error, LaterError) and error.alive):
                self.breaker.failed(str(error))
            else:
                self.breaker.succeeded()  # it answered: the request is wrong, or the first instance starts
            raise
        self.breaker.succeeded()

    def _attempts(self, body: bytes, kind: str, seconds: float) -> tuple[bytes, str]:
        end = time.monotonic() + seconds

        def attempt() -> tuple[bytes, str]:
            try:
                return bounded(lambda: self.client.invoke(body, kind, CONTENT_TYPE), end - time.monotonic())
            except TimeoutError as error:
                text = f"endpoint '{self.client.name}' did not answer in the {seconds:.1f} s that this request had"
                raise DeadlineError(text) from error

        retrying = Retrying(
            retry=retry_if_exception(lambda error: isinstance(error, LaterError) and error.again),
            stop=stop_after_attempt(ATTEMPTS) | stop_before_delay(seconds),
            wait=_wait,
            sleep=self._sleep,
            reraise=True,
        )
        return retrying(attempt)

    def _read(self, answer: bytes, kind: str, outputs: list[str] | None) -> InferResponse:
        try:
            response = decode_response(answer, kind, self.signature, outputs)
            self._recognise(response)
        except ValueError as error:
            text = f"endpoint '{self.client.name}' {error}; deploy the function and its endpoint again"
            raise UpstreamError(text) from error
        return response

    def _recognise(self, response: InferResponse) -> None:
        """Refuse the answer of another model, or of a version that takes and gives something else.

        Raises:
            ValueError: a phrase.
        """
        wanted, served = self._manifest, f"{response.model[:80]}:{response.version[:40]}"
        if response.model != wanted.name:
            raise ValueError(f"serves {served} where {wanted.ref} was expected")
        same = response.interface == self._interface if response.interface else served == wanted.ref
        if not same:
            raise ValueError(f"serves {served}, whose inputs, outputs or labels are not those of {wanted.ref}")


def _wait(state: RetryCallState) -> float:
    """Seconds before the next attempt: full jitter, but no less than the endpoint asks for."""
    error = state.outcome.exception() if state.outcome else None
    asked = error.wait if isinstance(error, LaterError) else 0
    return max(asked, _random.uniform(0, min(LONGEST_WAIT, FIRST_WAIT * 2 ** (state.attempt_number - 1))))
