"""One SageMaker endpoint, asked once: bytes in, bytes out. Only here are boto3 and its errors named.

Sources: https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_runtime_InvokeEndpoint.html (its errors)
and https://docs.aws.amazon.com/sagemaker/latest/dg/endpoint-auto-scaling-zero-instances.html (no instance is there).
A client reads our sentences: what AWS says beside them has account and role in it, and stays the cause for the log.
"""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import msgspec

from sampan.contract.errors import DeadlineError, ModelError, SampanError, UnavailableError, UpstreamError

PATIENCE = {
    "connect_timeout": 1,
    "read_timeout": 60,  # seconds that a container has
    "retries": {"total_max_attempts": 1},  # `session.py` tries again
    "user_agent_extra": "sampan",
}
STARTING = 60  # seconds until asking again is worth it where an instance has to come first; it takes minutes
_REFUSED = frozenset((400, 413, 415, 422))  # of the container: the request is wrong
_THROTTLED = frozenset(("ThrottlingException", "Throttling", "TooManyRequestsException", "RequestLimitExceeded"))
_LONGEST = 300  # characters of what another says


class LaterError(UnavailableError):
    """Raise when the endpoint cannot answer now.

    Attributes:
        again: another attempt may go well.
        alive: the endpoint does as it should, such as starting its first instance.
        wait: seconds that it asks to wait before another attempt.
    """

    def __init__(
        self, message: str, retry_after: int = 1, *, again: bool = False, alive: bool = False, wait: int = 0
    ) -> None:
        super().__init__(message, max(retry_after, wait))
        self.again = again
        self.alive = alive
        self.wait = wait


class RefusedError(SampanError):
    """Raise when the container finds the request wrong; it has the status and the sentence of the container."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class Runtime(Protocol):
    """What of boto3's client is asked here."""

    def invoke_endpoint(self, **request: Any) -> Mapping[str, Any]: ...


class EndpointClient:
    """Asks one endpoint; for use by several threads.

    Args:
        name: of the endpoint.
        component: inference component, where the endpoint has some.
        runtime: boto3's client; made here if it is None, from where boto3 finds region, credentials and address.

    Raises:
        ModelError: boto3 is not installed, or knows no region.
    """

    def __init__(self, name: str, component: str = "", runtime: Runtime | None = None) -> None:
        self.name = name
        self._target = {"EndpointName": name, **({"InferenceComponentName": component} if component else {})}
        self._runtime = runtime or _runtime(name)
        self._translated = _translator(name, component)

    def invoke(self, body: bytes, content_type: str, accept: str) -> tuple[bytes, str]:
        """The container's answer and its Content-Type.

        Raises:
            LaterError: not now; the endpoint does not exist or cannot be reached, is throttled, or starts.
            DeadlineError: the container does not answer in SageMaker's time.
            RefusedError: the container finds the request wrong.
            UpstreamError: the container fails, or this process may not ask it.
        """
        try:
            answer = self._runtime.invoke_endpoint(**self._target, ContentType=content_type, Accept=accept, Body=body)
            return answer["Body"].read(), str(answer.get("ContentType", ""))
        except Exception as error:  # boto3 makes its classes while it runs
            raise self._translated(error) from error


def _runtime(name: str) -> Runtime:
    try:
        import boto3
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError
    except ImportError as error:
        raise ModelError(
            f"endpoint '{name}' is asked with the package boto3; install it with pip install 'sampan[remote]'"
        ) from error
    try:
        client: Runtime = boto3.Session().client("sagemaker-runtime", config=Config(**PATIENCE))
    except BotoCoreError as error:
        raise ModelError(f"endpoint '{name}' cannot be asked: {error}; set AWS_DEFAULT_REGION") from error
    return client


def _translator(name: str, component: str) -> Callable[[Exception], SampanError]:
    """Foreign errors → ours, in which the endpoint's name stands."""
    from botocore.exceptions import (
        ClientError,
        ConnectionError,
        HTTPClientError,
        IncompleteReadError,
        ReadTimeoutError,
    )

    who = f"endpoint '{name}'" + (f" (component '{component}')" if component else "")

    def translated(error: Exception) -> SampanError:
        if isinstance(error, ClientError):
            return _answered(who, error.response)
        if isinstance(error, ReadTimeoutError):
            return DeadlineError(f"{who} did not answer within {PATIENCE['read_timeout']} s")
        if isinstance(error, ConnectionError | HTTPClientError | IncompleteReadError):
            return LaterError(f"{who} cannot be reached ({type(error).__name__})", again=True)
        return UpstreamError(f"{who} cannot be asked ({type(error).__name__}); the function's log has more")

    return translated


def _answered(who: str, response: Mapping[str, Any]) -> SampanError:
    """What an error of SageMaker's means."""
    said = response.get("Error", {})
    code, message = str(said.get("Code", ""))[:80], str(said.get("Message")).lower()
    http = response.get("ResponseMetadata", {})
    status = int(http.get("HTTPStatusCode", 0))
    wait = _seconds(http.get("HTTPHeaders", {}).get("retry-after", ""))
    if code == "ModelError":
        return _of_the_container(who, response)
    if code == "ModelNotReadyException":
        return LaterError(f"{who} loads its model; try again in a minute", STARTING, again=True, alive=True)
    if code in _THROTTLED or status == 429:
        return LaterError(f"{who} is throttled; try again later", again=True, wait=wait)
    if status >= 500:
        return LaterError(f"{who} is not available ({code}); try again later", again=True, wait=wait)
    if "no capacity" in message:
        text = f"{who} has no instance running and starts one, which takes minutes; try again in a minute"
        return LaterError(text, STARTING, alive=True)
    if "not found" in message:
        return LaterError(f"{who} does not exist; deploy the function and its endpoint again")
    if status == 413:
        return RefusedError(f"the tensors are too large for {who}; send less at a time", 413)
    if status in (401, 403):
        return UpstreamError(f"the function's role may not invoke {who} ({code}); grant it sagemaker:InvokeEndpoint")
    return UpstreamError(f"{who} refuses what it is sent ({code}); the function's log has more")


def _of_the_container(who: str, response: Mapping[str, Any]) -> SampanError:
    """What an answer of the container's other than 200 means; 0 is none within SageMaker's time."""
    status, message = int(response.get("OriginalStatusCode") or 0), _sentence(response.get("OriginalMessage"))
    if status in _REFUSED:
        return RefusedError(message, status)
    if status in (429, 503):
        return LaterError(f"{who} is at its limit: {message}", again=True)
    if not status or "timed out" in str(response.get("Message", "")):
        return DeadlineError(f"the container of {who} did not answer within SageMaker's 60 s")
    return UpstreamError(f"the container of {who} fails with {status}: {message}")


def _sentence(body: Any) -> str:
    """The `error` of a body, or what it is."""
    try:
        return _short(msgspec.json.decode(str(body), type=dict[str, Any])["error"])
    except (msgspec.MsgspecError, KeyError):
        return _short(body or "no reason given")


def _short(text: Any) -> str:
    return " ".join(str(text).split())[:_LONGEST].rstrip(".")


def _seconds(text: str) -> int:
    """A `Retry-After` in seconds (RFC 9110, 10.2.3); 0 for a date or none."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 6 else 0
