"""The data plane: tensors and items in, tensors and results out. Knows the protocol's words, no transport."""

import time
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from sampan.contract import VERSION
from sampan.contract.errors import InvalidInputError, ModelError, NotFoundError
from sampan.contract.tensors import Array, Tensors
from sampan.serving.repository import ModelRepository, ServedModel

EXTENSIONS = ["binary_tensor_data", "classification", "model_repository"]
PLATFORM = "onnx_onnxv1"


class Ran(msgspec.Struct, frozen=True):
    """Version that computed it, milliseconds that the graph itself took, what the client should know of how."""

    version: str
    run_ms: float
    parameters: Mapping[str, Any] = {}


class Inferred(msgspec.Struct, frozen=True):
    """Outputs by name."""

    outputs: dict[str, Array]
    ran: Ran


class Predicted(msgspec.Struct, frozen=True):
    """One result an item."""

    results: list[Any]
    ran: Ran


class DataPlane:
    """What a server answers, in Python values. One object a process; safe to call from several threads."""

    def __init__(self, repository: ModelRepository) -> None:
        self.repository = repository

    def server(self) -> dict[str, Any]:
        return {"name": "sampan", "version": VERSION, "extensions": EXTENSIONS}

    def model(self, name: str, version: str | None = None) -> ServedModel:
        return self.repository.get(name, version)

    def metadata(self, name: str, version: str | None = None) -> dict[str, Any]:
        model = self.model(name, version)
        versions = self.repository.versions(name)
        return {
            "name": name,
            "versions": versions,
            "platform": PLATFORM,
            **model.signature.to_json(),
            **model.details(),
        }

    def index(self) -> Iterator[dict[str, Any]]:
        """Every served version (Triton's model repository extension)."""
        for model in self.repository.all():
            state = "READY" if model.ready else "UNAVAILABLE"
            reason = "" if model.ready else model.waits_for
            yield {"name": model.name, "version": model.version, "state": state, "reason": reason}

    def infer(self, model: ServedModel, inputs: Tensors, outputs: list[str] | None = None) -> Inferred:
        """Run the graph on checked tensors."""
        model.signature.check(inputs)
        _ = model.session  # opening it is not running it
        start = time.perf_counter()
        answer = model.answer(inputs, outputs)
        run_ms = (time.perf_counter() - start) * 1000
        return Inferred(answer.outputs, Ran(answer.version, run_ms, answer.parameters))

    def predict(self, model: ServedModel, items: list[Any]) -> Predicted:
        """Pre-process items (text or bytes), run the graph once for all, post-process.

        Raises:
            InvalidInputError: an item of the wrong kind, or a model without a pipeline.
            ModelError: the function's own pipeline fails.
        """
        pipeline = model.pipeline
        if pipeline.preprocess is None or pipeline.postprocess is None:
            raise InvalidInputError(f"model '{model.name}' declares no pipeline; send rows of numbers")
        if not items:
            return Predicted([], Ran(model.version, 0.0))
        inputs = pipeline.preprocess(items)
        inferred = self.infer(model, inputs)
        results = pipeline.postprocess(inferred.outputs, inputs)
        if pipeline.own and len(results) != len(items):
            raise ModelError(f"{pipeline.own} gives {len(results)} results for {len(items)} items; give one an item")
        return Predicted(results, inferred.ran)

    def embed(self, model: ServedModel, texts: list[str]) -> Predicted:
        """Vectors of texts.

        Raises:
            NotFoundError: the model is no embedding model.
        """
        if model.pipeline.output_kind != "vector":
            raise NotFoundError(f"model '{model.name}' gives no embeddings; its pipeline has no vector output")
        return self.predict(model, texts)
