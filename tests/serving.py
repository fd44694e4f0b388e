"""A store of tiny models, one request by every way into the serving core, and the answer that came back."""

import asyncio
import base64
import copy
import io
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from onnx import TensorProto, helper
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

import models
from sampan.contract.tensors import DATATYPES
from sampan.serving.asgi import create_app
from sampan.serving.handler import LambdaHandler
from sampan.serving.http import Request, Response
from sampan.serving.repository import load
from sampan.serving.settings import Settings
from sampan.store import LocalStore
from sampan.store.add import add_model
from sampan.store.moves import promote

EVENTS = Path(__file__).parent / "events"
LENGTH = "inference-header-content-length"
VOCABULARY = ("[UNK]", "[PAD]", "red", "green", "blue", "fish")

FILES = """[input]
kind = "bytes"
head = 4
tail = 4
[output]
kind = "labels"
top = 2
activation = "softmax"
"""
PICTURES = """[input]
kind = "image"
height = 16
width = 16
[output]
kind = "tensors"
"""
WORDS = """[input]
kind = "text"
max_length = 8
[output]
kind = "vector"
"""


# --- models ----------------------------------------------------------------------------------------------------


def embedder(size: int = 4, seed: int = 0):
    """A table of word vectors: INT64 ids and mask [batch, tokens] to FP32 [batch, tokens, size]."""
    table = np.random.default_rng(seed).normal(size=(len(VOCABULARY), size)).astype(np.float32)
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["vectors"]),
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask", "last"], ["column"]),
        helper.make_node("Mul", ["vectors", "column"], ["tokens"]),
    ]
    return models.build(
        nodes,
        [("input_ids", "INT64", ("batch", "length")), ("attention_mask", "INT64", ("batch", "length"))],
        [("tokens", "FP32", ("batch", "length", size))],
        {"table": table, "last": np.array([-1], np.int64)},
    )


def file_classifier(classes: int = 3, seed: int = 0):
    """FP32 [batch, 8] of token ids to scores [batch, classes]."""
    return models.linear(8, classes, seed)


def tokenizer() -> Tokenizer:
    """One id a word; unknown words are [UNK]."""
    made = Tokenizer(WordLevel({word: number for number, word in enumerate(VOCABULARY)}, unk_token="[UNK]"))
    made.pre_tokenizer = Whitespace()
    return made


def picture(width: int = 16, height: int = 16, kind: str = "PNG", mode: str = "RGB") -> bytes:
    """A picture file with a gradient."""
    from PIL import Image

    values = np.arange(width * height * 3, dtype=np.uint32).reshape(height, width, 3) % 256
    file = io.BytesIO()
    Image.fromarray(values.astype(np.uint8)).convert(mode).save(file, kind)
    return file.getvalue()


def build_zoo(folder: Path) -> Path:
    """A store with every kind of model that the tests ask; `linear` has two versions, the first of them live."""
    store = LocalStore(folder / "store")

    def add(name: str, model: Any, pipeline: str = "", **more: Any) -> None:
        path = models.save(model, folder / f"{name}.onnx")
        if pipeline:
            more["pipeline"] = folder / f"{name}.toml"
            more["pipeline"].write_text(pipeline)
        add_model(store, path, name=name, **more)

    add("linear", models.linear(seed=0))
    promote(store, "linear:1")
    add("linear", models.linear(seed=1))
    add("several", models.several())
    add("nan", models.not_a_number())
    add("scalar", models.identity("FP32", ()))
    add("matrix", models.identity("FP32", ("n", "m")))
    add("wide", models.identity("FP32", (1, "n")))
    for datatype in DATATYPES:
        add(f"echo-{datatype.lower()}", models.identity(datatype))
    (folder / "labels.txt").write_text("text\nimage\nother\n")
    add("files", file_classifier(), FILES, labels=folder / "labels.txt")
    add("pictures", models.convolution(), PICTURES)
    tokenizer().save(str(folder / "tokenizer.json"))
    add("words", embedder(), WORDS, extras=[folder / "tokenizer.json"])
    return folder / "store"


# --- requests --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ask:
    """One HTTP request."""

    method: str
    path: str
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Answer:
    """What came back; header names in lower case."""

    status: int
    body: bytes
    headers: Mapping[str, str]

    def json(self) -> Any:
        return json.loads(self.body, parse_constant=_no_constant)

    @property
    def error(self) -> str:
        document = self.json()
        assert list(document) == ["error"], document
        return document["error"]


def _no_constant(text: str) -> float:
    raise AssertionError(f"{text} is no JSON")


def post(path: str, document: Any = None, **headers: str) -> Ask:
    """A JSON request; `document` may be bytes."""
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    kind = {"content-type": "application/json"}
    return Ask("POST", path, body, kind | {name.replace("_", "-"): value for name, value in headers.items()})


def tensor(name: str, datatype: str, shape: list[int], data: Any = None, **parameters: Any) -> dict[str, Any]:
    entry: dict[str, Any] = {"name": name, "datatype": datatype, "shape": shape}
    if data is not None:
        entry["data"] = data
    return entry | ({"parameters": parameters} if parameters else {})


def binary(path: str, document: Any, *blobs: bytes, **headers: str) -> Ask:
    """A V2 request in the binary form."""
    head = json.dumps(document).encode()
    return Ask("POST", path, b"".join((head, *blobs)), {LENGTH: str(len(head)), **headers})


def load_event(name: str, **overrides: Any) -> dict[str, Any]:
    """A real event of `tests/events`, with some of its members replaced."""
    return json.loads((EVENTS / f"{name}.json").read_text()) | overrides


def event_of(name: str, ask: Ask) -> dict[str, Any]:
    """The event that a gateway of this kind makes of a request."""
    event = load_event(name)
    sent = {key.lower(): value for key, value in ask.headers.items()}
    if "multiValueHeaders" in event:
        event["multiValueHeaders"] |= {key: [value] for key, value in sent.items()}
    if "headers" in event:
        event["headers"] |= sent
    if "http" in event["requestContext"]:
        stage = event["requestContext"]["stage"]
        path = quote(ask.path) if stage == "$default" else f"/{stage}{quote(ask.path)}"
        event["rawPath"] = event["requestContext"]["http"]["path"] = path
        event["requestContext"]["http"]["method"] = ask.method
    else:
        event["httpMethod"], event["path"] = ask.method, quote(ask.path)
    if ask.body:
        event |= {"body": base64.b64encode(ask.body).decode(), "isBase64Encoded": True}
    return event


def answer_of(result: Mapping[str, Any]) -> Answer:
    """What the gateway makes of a function's result."""
    assert isinstance(result["statusCode"], int)
    body = result["body"]
    content = base64.b64decode(body, validate=True) if result["isBase64Encoded"] else body.encode()
    headers = {name: values[0] for name, values in (result.get("multiValueHeaders") or {}).items()}
    return Answer(result["statusCode"], content, headers | (result.get("headers") or {}))


class Recorder:
    """An observer that keeps what it hears."""

    def __init__(self) -> None:
        self.lines: list[tuple[Request, Response]] = []
        self.failures: list[BaseException] = []

    def served(self, request: Request, response: Response, start: float, context: Any) -> None:
        self.lines.append((request, response))

    def failed(self, request: Request, error: BaseException) -> None:
        self.failures.append(error)


class Served:
    """Every way to the models of a store: Lambda events by both lanes, and the ASGI app."""

    def __init__(self, folders: list[str], settings: Settings | None = None) -> None:
        self.repository = load(folders, default=settings.default if settings else "")
        self.observer = Recorder()
        chosen = settings or Settings()
        self.hot = LambdaHandler(self.repository, chosen, self.observer)
        self.cold = LambdaHandler(self.repository, chosen, self.observer, lane="cold")
        self.app = create_app(self.hot.api, self.observer)

    def __call__(self, ask: Ask) -> Answer:
        return self.ways()["rest"](ask)

    def ways(self) -> dict[str, Callable[[Ask], Answer]]:
        kinds = ("rest", "http", "url", "alb", "alb_multi")
        lanes = {"hot": self.hot, "cold": self.cold}
        ways = {f"{kind}-{lane}": _through(handler, kind) for kind in kinds for lane, handler in lanes.items()}
        return {"rest": ways["rest-hot"], **ways, "asgi": lambda ask: call_asgi(self.app, ask)}


def _through(handler: LambdaHandler, kind: str) -> Callable[[Ask], Answer]:
    return lambda ask: answer_of(handler(event_of(kind, ask), None))


def call_asgi(app: Any, ask: Ask, chunk: int = 65_536) -> Answer:
    """One request to an ASGI app, its body in chunks, as a server would hand it over."""
    sent: list[dict[str, Any]] = []
    chunks = [ask.body[start : start + chunk] for start in range(0, len(ask.body), chunk)] or [b""]
    messages: Iterator[dict[str, Any]] = iter(
        [
            {"type": "http.request", "body": part, "more_body": number < len(chunks) - 1}
            for number, part in enumerate(chunks)
        ]
    )
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": ask.method,
        "scheme": "http",
        "path": ask.path,
        "raw_path": quote(ask.path).encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in ask.headers.items()],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
    }

    async def receive() -> dict[str, Any]:
        return next(messages, {"type": "http.disconnect"})

    async def send(message: dict[str, Any]) -> None:
        sent.append(copy.copy(message))

    asyncio.run(app(scope, receive, send))
    headers = {name.decode(): value.decode("latin-1") for name, value in sent[0]["headers"]}
    return Answer(sent[0]["status"], b"".join(part.get("body", b"") for part in sent[1:]), headers)
