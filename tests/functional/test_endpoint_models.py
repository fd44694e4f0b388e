"""Many models in one container: SageMaker's multi-model API."""

import json
import re
import shutil
import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
import tritonclient.http as triton

import models
from endpoints import container
from sampan.serving.asgi import create_app
from sampan.serving.dataplane import DataPlane
from sampan.serving.endpoint.memory import available_memory
from sampan.serving.endpoint.models import LoadedModels, model_routes
from sampan.serving.endpoint.server import EndpointApi
from sampan.serving.http import Request
from sampan.serving.repository import ServedModel
from sampan.serving.routes import ROUTES
from sampan.store import LocalStore, open_store
from sampan.store.add import add_model
from serving import Answer, Ask, call_asgi, post

ROWS = {"instances": [[1.0, 2.0, 3.0, 4.0]]}
GB = 2**30


class Held(ServedModel):
    """Says when a request is in it, and waits until it may go on."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.entered, self.go, self.closed = threading.Event(), threading.Event(), threading.Event()
        self.go.set()

    def close(self) -> None:
        super().close()
        self.closed.set()

    def answer(self, inputs: Any, outputs: Any = None) -> Any:
        self.entered.set()
        assert self.go.wait(60)
        return super().answer(inputs, outputs)


class Fleet:
    """A multi-model container in this process; `memory` is what the machine says is left."""

    def __init__(self, root: Path, golden: int = 0) -> None:
        self.root = root
        self.memory: int | None = GB
        self.made: list[weakref.ref[Held]] = []
        self.models = LoadedModels(self.make, root, golden=golden, available=lambda: self.memory)
        routes = (*ROUTES, *model_routes(self.models))
        self.api = EndpointApi(DataPlane(self.models), 6_000_000, routes, self.models.held)
        self.app = create_app(self.api, threads=8)

    def make(self, folder: Path) -> Held:
        model = Held(folder)
        self.made.append(weakref.ref(model))
        return model

    def __call__(self, method: str, path: str, document: Any = None) -> Answer:
        body = b"" if document is None else json.dumps(document).encode()
        response = self.api.answer(Request(method, path, {"content-type": "application/json"}, body))
        return Answer(response.status, response.body, {"content-type": response.content_type, **response.headers})

    def load(self, name: str, folder: str = "linear") -> Answer:
        return self("POST", "/models", {"model_name": name, "url": str(self.root / folder)})


@pytest.fixture(scope="module")
def root(zoo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Version folders as SageMaker unpacks them."""
    root = tmp_path_factory.mktemp("models")
    for name in ("linear", "several", "words", "files"):
        shutil.copytree(open_store(str(zoo)).find(name).folder, root / name)
    shutil.copytree(root / "linear", root / "archive" / "1")
    for number in ("1", "2"):
        shutil.copytree(root / "linear", root / "two" / number)
    (root / "empty").mkdir()
    (root / "broken").mkdir()
    (root / "broken" / "manifest.json").write_text("{")
    (root / "file").write_text("")
    (root / "way-out").symlink_to(open_store(str(zoo)).find("linear").folder)
    return root


@pytest.fixture
def fleet(root: Path) -> Fleet:
    return Fleet(root)


# --- load, list, show, unload ----------------------------------------------------------------------------------


def test_the_life_of_a_model(fleet: Fleet, root: Path):
    assert fleet("GET", "/ping").status == 200
    assert fleet("GET", "/models").json() == {"models": []}
    shown = {"modelName": "a1b2", "modelUrl": str(root / "linear")}
    answer = fleet.load("a1b2")
    assert (answer.status, answer.json()) == (200, shown)
    assert fleet("GET", "/models").json() == {"models": [shown]}
    assert fleet("GET", "/models/a1b2").json() == shown
    assert fleet("GET", "/ping").json()["models"] == [{"name": "linear", "version": "1", "ready": True}]
    assert np.array(fleet("POST", "/models/a1b2/invoke", ROWS).json()["predictions"]).shape == (1, 3)
    answer = fleet("DELETE", "/models/a1b2")
    assert (answer.status, answer.json()) == (200, shown)
    for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/invoke"), ("POST", "/predict")):
        gone = fleet(method, f"/models/a1b2{path}", ROWS if method == "POST" else None)
        assert (gone.status, gone.error) == (404, "model 'a1b2' is not loaded; GET /models lists those that are")
    assert fleet("GET", "/ping").status == 200
    assert fleet.load("a1b2").status == 200


def test_a_name_is_loaded_once(fleet: Fleet):
    assert fleet.load("m").status == 200
    again = fleet.load("m", "several")
    assert (again.status, again.error) == (409, "model 'm' is loaded already; DELETE /models/m unloads it")
    assert fleet("GET", "/models/m").json()["modelUrl"].endswith("/linear")


def test_one_version_under_several_names_and_an_unpacked_archive(fleet: Fleet):
    for name, folder in (("one", "linear"), ("two", "linear"), ("three", "archive")):
        assert fleet.load(name, folder).status == 200
    answers = {fleet("POST", f"/models/{name}/invoke", ROWS).body for name in ("one", "two", "three")}
    assert len(answers) == 1
    assert fleet("DELETE", "/models/one").status == 200
    assert fleet("POST", "/models/two/invoke", ROWS).status == 200


def test_every_route_knows_the_name(fleet: Fleet):
    assert fleet.load("x7", "words").status == 200
    assert fleet("POST", "/models/x7/predict", {"input": "red"}).json()["model_name"] == "words"
    assert (
        fleet("POST", "/models/x7/invoke", {"input": "red"}).body
        == fleet("POST", "/models/x7/predict", {"input": "red"}).body
    )
    assert fleet("GET", "/v2/models/x7").json()["versions"] == ["1"]
    assert fleet("GET", "/v2/models/x7/versions/1/ready").json()["ready"] is True
    missing = fleet("GET", "/v2/models/x7/versions/9")
    assert (missing.status, missing.error) == (404, "model 'x7' is loaded as version 1, not '9'")
    assert fleet("POST", "/v2/repository/index").json()[0]["name"] == "words"
    assert fleet("POST", "/invocations", {"input": "red"}).status == 200
    document = call_asgi(fleet.app, Ask("GET", "/openapi.json")).json()
    assert document["paths"]["/models"].keys() == {"get", "post"}
    assert "/models/words/invoke" in document["paths"]


def test_without_a_model_there_is_no_default_one(fleet: Fleet):
    answer = fleet("POST", "/invocations", ROWS)
    assert (answer.status, answer.error) == (404, "no model is loaded; POST /models loads one")


def test_a_long_list_comes_in_pages(fleet: Fleet):
    names = [f"m{number:02}" for number in range(7)]
    for name in reversed(names):
        assert fleet.load(name).status == 200

    def page(query: str) -> Any:
        response = fleet.api.answer(Request("GET", "/models", query=query))
        return json.loads(response.body)

    found, query = [], "limit=3"
    for _ in range(3):
        answer = page(query)
        found += [model["modelName"] for model in answer["models"]]
        query = f"limit=3&next_page_token={answer.get('nextPageToken')}"
        if answer.get("nextPageToken") == "m02":
            assert fleet("DELETE", "/models/m02").status == 200  # between two pages
    assert found == names
    assert "nextPageToken" not in answer
    assert page("limit=0")["error"].startswith("limit='0'")
    assert len(page("")["models"]) == 6


@pytest.mark.parametrize(
    ("document", "words"),
    [
        (None, "the body is empty"),
        ([], "must be a JSON object"),
        ({"model_name": "m"}, "'model_name' and 'url'"),
        ({"model_name": 1, "url": "/x"}, "'model_name' and 'url'"),
        ({"model_name": "a/b", "url": "{root}/linear"}, "'a/b' is no model_name"),
        ({"model_name": "", "url": "{root}/linear"}, "'' is no model_name"),
        ({"model_name": "m", "url": "{root}/nothing"}, "there is no folder at"),
        ({"model_name": "m", "url": "{root}/\0"}, "there is no folder at"),
        ({"model_name": "m", "url": "{root}/file"}, "holds 0 versions of Sampan"),
        ({"model_name": "m", "url": "{root}/empty"}, "holds 0 versions of Sampan; it must hold one (manifest.json)"),
        ({"model_name": "m", "url": "{root}/two"}, "holds 2 versions of Sampan"),
        ({"model_name": "m", "url": "{root}/broken"}, "is not a manifest"),
        ({"model_name": "m", "url": "{root}/../"}, "is not below {root}, where models are loaded from"),
        ({"model_name": "m", "url": "{root}/way-out"}, "is not below {root}"),
        ({"model_name": "m", "url": "/"}, "is not below {root}"),
        ({"model_name": "m", "url": "s3://bucket/m.tar.gz"}, "there is no folder at 's3://bucket/m.tar.gz'"),
    ],
)
def test_what_cannot_be_loaded_is_400(fleet: Fleet, root: Path, document: Any, words: str):
    if isinstance(document, dict) and isinstance(document.get("url"), str):
        document = document | {"url": document["url"].replace("{root}", str(root))}
    answer = fleet("POST", "/models", document)
    assert answer.status == 400
    assert words.replace("{root}", str(root.resolve())) in answer.error
    assert fleet("GET", "/models").json() == {"models": []}


def test_a_model_that_does_not_answer_as_it_should_is_not_loaded(root: Path, tmp_path: Path):
    store = LocalStore(tmp_path / "store")
    add_model(store, models.save(models.linear(), tmp_path / "m.onnx"), name="m")
    folder = tmp_path / "store" / "changed"
    shutil.copytree(store.find("m").folder, folder)
    models.save(models.linear(seed=3), folder / "model.onnx")
    fleet, made = Fleet(tmp_path, golden=2), []
    fleet.models._make = lambda path: made.append(fleet.make(path)) or made[-1]
    answer = fleet.load("m", "store/changed")
    assert made[0].closed.is_set()
    assert answer.status == 500
    assert "golden samples" in answer.error
    assert fleet("GET", "/models").json() == {"models": []}
    assert fleet.load("m", str(store.find("m").folder.relative_to(tmp_path))).status == 200


# --- memory ----------------------------------------------------------------------------------------------------


def test_a_model_that_does_not_fit_is_507_before_it_is_loaded(fleet: Fleet):
    fleet.memory = 100
    answer = fleet.load("m")
    assert answer.status == 507
    assert "not enough memory for another model: 'm' takes some" in answer.error
    assert fleet.made == []
    fleet.memory = None  # where nobody says how much there is, it is tried
    assert fleet.load("m").status == 200


@pytest.mark.parametrize(
    ("raised", "status"), [(MemoryError(), 507), (RuntimeError("std::bad_alloc"), 507), (RuntimeError("no"), 500)]
)
def test_memory_that_runs_out_while_loading_is_507(fleet: Fleet, raised: Exception, status: int):
    from sampan.contract.errors import ModelError

    class Full(ServedModel):
        def _opened(self) -> Any:
            raise ModelError("onnxruntime cannot load it") from raised

    fleet.models._make = Full
    assert fleet.load("m").status == status
    fleet.models._make = fleet.make
    assert fleet.load("m").status == 200


def test_models_that_load_at_the_same_time_share_what_is_left(fleet: Fleet):
    fleet.memory = 0
    refusal = fleet.load("first").error
    fleet.memory = int(re.search(r"takes some ([\d,]+) bytes", refusal)[1].replace(",", "")) + 10_000  # room for one
    opening, go = threading.Event(), threading.Event()

    class Slow(Held):
        def _opened(self) -> Any:
            opening.set()
            assert go.wait(60)
            return super()._opened()

    fleet.models._make = Slow
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(fleet.load, "first")
        assert opening.wait(60)
        assert fleet.load("second").status == 507
        assert fleet.load("first").status == 409
        assert fleet("GET", "/ping").status == 200
        go.set()
        assert first.result().status == 200
    assert fleet.load("second").status == 200


def test_an_unloaded_model_is_gone(fleet: Fleet):
    for name in ("a", "b"):
        assert fleet.load(name).status == 200
        assert fleet("POST", f"/models/{name}/invoke", ROWS).status == 200
    assert fleet("DELETE", "/models/a").status == 200
    assert [made() is None for made in fleet.made] == [True, False]


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


MEMINFO = {"proc/meminfo": "MemTotal:  8000 kB\nMemAvailable:  5000 kB\n"}


@pytest.mark.parametrize(
    ("files", "available"),
    [
        ({}, None),
        (MEMINFO, 5000 * 1024),
        (
            MEMINFO
            | {
                "sys/fs/cgroup/memory.max": "4000000\n",
                "sys/fs/cgroup/memory.current": "3000000\n",
                "sys/fs/cgroup/memory.stat": "anon 2500000\ninactive_file 400000\n",
            },
            1_400_000,
        ),
        (MEMINFO | {"sys/fs/cgroup/memory.max": "max\n", "sys/fs/cgroup/memory.current": "1\n"}, 5000 * 1024),
        (
            MEMINFO
            | {
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "2000000",
                "sys/fs/cgroup/memory/memory.usage_in_bytes": "2500000",
            },
            0,
        ),
        (
            MEMINFO
            | {
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712",
                "sys/fs/cgroup/memory/memory.usage_in_bytes": "2500000",
            },
            5000 * 1024,
        ),
    ],
)
def test_what_is_left_is_the_nearer_end(tmp_path: Path, files: dict[str, str], available: int | None):
    assert available_memory(write(tmp_path, files)) == available


# --- at the same time ------------------------------------------------------------------------------------------


def test_loads_of_one_name_at_once_give_one_model(fleet: Fleet):
    together = threading.Barrier(8)

    def load(_: int) -> int:
        together.wait(60)
        return fleet.load("m").status

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(load, range(8))) == [200] + [409] * 7
    assert len(fleet.made) == 1


def test_a_request_under_way_ends_before_its_model_goes(fleet: Fleet):
    assert fleet.load("m").status == 200
    model = fleet.made[0]()
    assert model is not None
    model.entered.clear()
    model.go.clear()
    with ThreadPoolExecutor(2) as pool:
        asked = pool.submit(fleet, "POST", "/models/m/invoke", ROWS)
        assert model.entered.wait(60)
        unloading = pool.submit(fleet, "DELETE", "/models/m")
        while fleet("GET", "/models/m").status == 200:
            pass
        assert not unloading.done()
        assert model.ready
        assert fleet("POST", "/models/m/invoke", ROWS).status == 404
        assert fleet.load("m").status == 200  # the name is free at once
        model.go.set()
        assert asked.result().status == 200
        assert unloading.result().status == 200
    assert not model.ready
    assert fleet("POST", "/models/m/invoke", ROWS).status == 200


# --- as a process ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def url(root: Path) -> Iterator[str]:
    more = {"SAGEMAKER_MULTI_MODEL": "true", "SAMPAN_MODELS_ROOT": str(root), "SAMPAN_GOLDEN_CHECK": "1"}
    with container("/nowhere", **more) as running:
        assert running.init["model"] == ""
        yield running.url


def test_over_http(url: str, root: Path):
    assert requests.get(url + "/ping", timeout=30).json() == {"status": "ready", "models": []}
    for name in ("a", "b", "c"):
        loaded = requests.post(url + "/models", json={"model_name": name, "url": str(root / "linear")}, timeout=30)
        assert loaded.status_code == 200, loaded.text
    first = requests.get(url + "/models?limit=2", timeout=30).json()
    rest = requests.get(url + "/models", params={"next_page_token": first["nextPageToken"]}, timeout=30).json()
    assert [model["modelName"] for model in (*first["models"], *rest["models"])] == ["a", "b", "c"]
    given = triton.InferInput("x", [1, 4], "FP32")
    given.set_data_from_numpy(np.ones((1, 4), np.float32))
    body, size = triton.InferenceServerClient.generate_request_body([given])
    kind = f"application/vnd.sagemaker-triton.binary+json;json-header-size={size}"
    answer = requests.post(url + "/models/b/invoke", data=body, headers={"content-type": kind}, timeout=30)
    length = int(answer.headers["content-type"].rpartition("=")[2])
    result = triton.InferenceServerClient.parse_response_body(answer.content, header_length=length)
    assert result.as_numpy("y").shape == (1, 3)
    for name in ("a", "b", "c"):
        assert requests.delete(f"{url}/models/{name}", timeout=30).status_code == 200
    assert requests.delete(url + "/models/a", timeout=30).json() == {
        "error": "model 'a' is not loaded; GET /models lists those that are"
    }


def test_only_a_multi_model_container_loads(served):
    for asked in (Ask("GET", "/models"), post("/models", {}), Ask("DELETE", "/models/linear")):
        assert served(asked).status == 404
