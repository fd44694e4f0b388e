"""Many models in one container: SageMaker loads and unloads them over HTTP, as memory allows.

    POST /models → folder below the root → room for it? → opened, proven → answers under its name
    DELETE /models/NAME → out of sight → its last request ends → closed, memory given back

Source: https://docs.aws.amazon.com/sagemaker/latest/dg/mms-container-apis.html
"""

import gc
import re
import threading
from bisect import bisect_right
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qs

from sampan.contract.errors import (
    ConflictError,
    InsufficientMemoryError,
    InvalidInputError,
    ModelError,
    NotFoundError,
)
from sampan.contract.manifest import Manifest
from sampan.serving.call import Call, Route
from sampan.serving.codecs import json
from sampan.serving.endpoint.memory import available_memory
from sampan.serving.http import Response
from sampan.serving.invocations import invoke
from sampan.serving.listening import return_memory
from sampan.serving.repository import MANIFEST, ModelRepository, ServedModel, prove, read_manifest, warm_up

_NAME = re.compile(r"[^/:]{1,256}")  # what a path can name
_BESIDE = 32 * 1024 * 1024  # bytes that a session takes beside its weights: graph, plan, threads
_PAGE = 100  # models that a list shows at a time
_PATIENCE = 50.0  # seconds that an unloading waits for requests under way; SageMaker waits 60


@dataclass(slots=True, eq=False)
class _Loaded:
    """A model under its name: how many requests have it, and whether it is on its way out."""

    model: ServedModel
    url: str
    requests: int = 0
    leaving: bool = False
    closed: threading.Event = field(default_factory=threading.Event)


class LoadedModels(ModelRepository):
    """Models by the names that SageMaker gives them. Safe to call from several threads.

    Args:
        make: what serves a version folder.
        root: folder that models are loaded from.
        golden: golden samples that each must reproduce first.
        copies: sessions of each model, which each have its weights.
        available: bytes of memory that there are, None where nobody knows.
    """

    def __init__(
        self,
        make: Callable[[Path], ServedModel],
        root: Path,
        *,
        golden: int = 0,
        copies: int = 1,
        available: Callable[[], int | None] = available_memory,
    ) -> None:
        super().__init__(())
        self._make = make
        self._root = root
        self._golden = golden
        self._copies = copies
        self._available = available
        self._lock = threading.Lock()
        self._loaded: dict[str, _Loaded] = {}
        self._loading: dict[str, int] = {}  # bytes that each will take
        self._thread = threading.local()

    def load(self, name: str, url: str) -> None:
        """Open the version at `url` under a name.

        Raises:
            InvalidInputError: a name that no path can have, or no version folder below the root.
            ConflictError: the name is loaded, or being loaded.
            InsufficientMemoryError: it does not fit beside the others.
            ModelError: it is broken, or does not reproduce its golden samples.
        """
        if not _NAME.fullmatch(name):
            raise InvalidInputError(f"'{name[:80]}' is no model_name: 1 to 256 characters, without / and :")
        folder = version_folder(url, self._root)
        with self._room(name, read_manifest(folder)):
            model = self._opened(folder)
            with self._lock:
                self._loaded[name] = _Loaded(model, url)

    def unload(self, name: str) -> str:
        """Forget a model and give back its memory, once the requests that have it are answered.

        Returns:
            Where it came from.

        Raises:
            NotFoundError: it is not loaded.
        """
        with self._lock:
            loaded = self._find(name)
            del self._loaded[name]
            loaded.leaving = True
            idle = not loaded.requests
        if idle:
            _close(loaded)
        loaded.closed.wait(_PATIENCE)
        return loaded.url

    def url(self, name: str) -> str:
        with self._lock:
            return self._find(name).url

    def page(self, after: str, limit: int) -> tuple[list[tuple[str, str]], str]:
        """Names with their urls, in alphabetical order behind a name, and the name that the next page begins behind."""
        with self._lock:
            names = sorted(self._loaded)
            start = bisect_right(names, after)
            shown = names[start : start + limit]
            entries = [(name, self._loaded[name].url) for name in shown]
        return entries, shown[-1] if start + limit < len(names) else ""

    @contextmanager
    def held(self) -> Iterator[None]:
        """Models that this thread gets in the block stay open until its end."""
        held: list[_Loaded] = []
        self._thread.held = held
        try:
            yield
        finally:
            self._thread.held = None
            while held:
                self._release(held.pop())

    def get(self, name: str, version: str | None = None) -> ServedModel:
        with self._lock:
            loaded = self._find(name)
            held = getattr(self._thread, "held", None)
            if held is not None:
                loaded.requests += 1
                held.append(loaded)
            model = loaded.model
        if version not in (None, model.version):
            raise NotFoundError(f"model '{name}' is loaded as version {model.version}, not '{version}'")
        return model

    def default(self) -> ServedModel:
        with self._lock:
            name = next(iter(self._loaded), None)
        if name is None:
            raise NotFoundError("no model is loaded; POST /models loads one")
        return self.get(name)

    def versions(self, name: str) -> list[str]:
        return [self.get(name).version]

    def live(self) -> Iterator[ServedModel]:
        with self._lock:
            return iter([loaded.model for loaded in self._loaded.values()])

    def all(self) -> Iterator[ServedModel]:
        return self.live()

    def _find(self, name: str) -> _Loaded:
        if name not in self._loaded:
            raise NotFoundError(f"model '{name[:80]}' is not loaded; GET /models lists those that are")
        return self._loaded[name]

    def _release(self, loaded: _Loaded) -> None:
        with self._lock:
            loaded.requests -= 1
            last = loaded.leaving and not loaded.requests
        if last:
            _close(loaded)

    @contextmanager
    def _room(self, name: str, manifest: Manifest) -> Iterator[None]:
        """A name that nobody else loads, and memory that nobody else counts on."""
        # onnxruntime reads the file, then copies its weights into each session
        needed = manifest.size + (manifest.size + _BESIDE) * self._copies
        with self._lock:
            if name in self._loaded or name in self._loading:
                raise ConflictError(f"model '{name}' is loaded already; DELETE /models/{name} unloads it")
            available = self._available()
            left = None if available is None else max(0, available - sum(self._loading.values()))
            if left is not None and left < needed:
                raise _full(f"'{name}' takes some {needed:,} bytes, and {left:,} are left")
            self._loading[name] = needed
        try:
            yield
        finally:
            with self._lock:
                del self._loading[name]

    def _opened(self, folder: Path) -> ServedModel:
        model = self._make(folder)
        try:
            model.open()
            if self._golden:
                prove(model, self._golden)
            warm_up(model)
            return model
        except (MemoryError, ModelError) as error:
            model.close()
            if not _by_memory(error):
                raise
            return_memory()
            raise _full(f"{folder.name} could not be opened") from error


def version_folder(url: str, root: Path) -> Path:
    """The version folder at a path, or one level below it, as an unpacked archive may have it.

    Raises:
        InvalidInputError: outside of the root, not there, no version of Sampan, or several.
    """
    base = root.resolve()
    try:
        top = Path(url).resolve(strict=True)
        found = [top] if (top / MANIFEST).is_file() else [path.parent for path in top.glob(f"*/{MANIFEST}")]
    except (OSError, ValueError) as error:
        raise InvalidInputError(f"there is no folder at '{url[:200]}'") from error
    if not all(path.resolve().is_relative_to(base) for path in (top, *found)):
        raise InvalidInputError(f"'{url[:200]}' is not below {base}, where models are loaded from")
    if len(found) != 1:
        raise InvalidInputError(f"'{url[:200]}' holds {len(found)} versions of Sampan; it must hold one ({MANIFEST})")
    try:
        read_manifest(found[0])
    except ModelError as error:
        raise InvalidInputError(error.message) from error
    return found[0]


def model_routes(models: LoadedModels) -> tuple[Route, ...]:
    """The routes of a multi-model container."""

    def load(call: Call) -> Response:
        document = json.mapping(json.read(call.body, json.plain), "the body")
        name, url = document.get("model_name"), document.get("url")
        if not isinstance(name, str) or not isinstance(url, str):
            raise InvalidInputError("the body must be an object with 'model_name' and 'url', both text")
        models.load(name, url)
        return _shown(name, url)

    def listed(call: Call) -> Response:
        query = {key: values[-1] for key, values in parse_qs(call.request.query).items()}
        limit = query.get("limit", str(_PAGE))
        if not (limit.isascii() and limit.isdigit() and 0 < int(limit[:9]) <= 1000):
            raise InvalidInputError(f"limit='{limit[:40]}' is no number of models from 1 to 1000")
        entries, token = models.page(query.get("next_page_token", ""), int(limit))
        shown = [{"modelName": name, "modelUrl": url} for name, url in entries]
        return Response(json.dumps({"models": shown, **({"nextPageToken": token} if token else {})}))

    def show(call: Call) -> Response:
        return _shown(_name(call), models.url(_name(call)))

    def unload(call: Call) -> Response:
        return _shown(_name(call), models.unload(_name(call)))

    def answer(call: Call) -> Response:
        return invoke(call, call.model())

    return (
        Route("POST", "/models", load, "Load a model, SageMaker"),
        Route("GET", "/models", listed, "List the loaded models, SageMaker"),
        Route("GET", "/models/{model}", show, "Where a loaded model is from, SageMaker"),
        Route("DELETE", "/models/{model}", unload, "Unload a model, SageMaker"),
        Route("POST", "/models/{model}/invoke", answer, "Predict with a loaded model, SageMaker"),
    )


def _name(call: Call) -> str:
    return call.params["model"] or ""


def _shown(name: str, url: str) -> Response:
    return Response(json.dumps({"modelName": name, "modelUrl": url}))


def _close(loaded: _Loaded) -> None:
    try:
        loaded.model.close()
        del loaded.model
        gc.collect()
        return_memory()
    finally:
        loaded.closed.set()


def _full(reason: str) -> InsufficientMemoryError:
    return InsufficientMemoryError(f"not enough memory for another model: {reason}; unload others")


def _by_memory(error: BaseException | None) -> bool:
    """Whether memory ran out somewhere below; onnxruntime says so in words."""
    while error is not None:
        if isinstance(error, MemoryError) or "bad_alloc" in str(error) or "allocate memory" in str(error):
            return True
        error = error.__cause__
    return False
