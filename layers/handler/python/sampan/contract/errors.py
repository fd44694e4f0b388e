"""One error tree. Every message is one sentence that says what, where, and what to try.

`status` is the HTTP status that the data plane answers with. The command line prints the same sentence
and exits with 1.
"""


class SampanError(Exception):
    """Base of every error that Sampan raises on purpose."""

    status = 500

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class InvalidInputError(SampanError):
    """Raise when a request, a file or an argument is not what was asked for."""

    status = 400


class NotFoundError(SampanError):
    """Raise when a model, a version, an alias or a route does not exist."""

    status = 404


class MethodNotAllowedError(SampanError):
    """Raise when a path exists but not for this HTTP method."""

    status = 405

    def __init__(self, method: str, path: str, allowed: tuple[str, ...]) -> None:
        super().__init__(f"{method} is not allowed on {path}; use {' or '.join(allowed)}")
        self.allowed = allowed


class ConflictError(SampanError):
    """Raise when another writer was first, or a name is taken."""

    status = 409


class PayloadTooLargeError(SampanError):
    """Raise when a body is larger than the place it runs in carries."""

    status = 413

    def __init__(self, what: str, size: int, limit: int) -> None:
        super().__init__(f"the {what} has {size:,} bytes, over the limit of {limit:,}; send less at a time")
        self.size = size
        self.limit = limit


class UnsupportedMediaTypeError(SampanError):
    """Raise when a body's Content-Type or Content-Encoding cannot be read here."""

    status = 415


class UnavailableError(SampanError):
    """Raise when the answer is "later": the model is loading or at its limit."""

    status = 503

    def __init__(self, message: str, retry_after: int = 1) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class UpstreamError(SampanError):
    """Raise when what stands behind (a SageMaker endpoint) answers with something else than it should."""

    status = 502


class DeadlineError(SampanError):
    """Raise when what stands behind does not answer in the time that the request has left."""

    status = 504


class InsufficientMemoryError(SampanError):
    """Raise when a further model does not fit beside those that are loaded."""

    status = 507


class ModelError(SampanError):
    """Raise when a model file cannot be used: broken, unsafe, or beyond what the runtime has."""

    status = 500


class ConversionError(SampanError):
    """Raise when a model of another framework cannot be converted, or ONNX does not answer as its source does."""

    status = 500


class StoreError(SampanError):
    """Raise when the store cannot do what was asked: unreadable, read-only, full, or damaged."""

    status = 500


class GateError(SampanError):
    """Raise when no candidate holds the gate, so that nothing is registered."""

    status = 500
