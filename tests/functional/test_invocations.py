"""SageMaker's container contract, `/ping` and `/invocations`, by every way into the serving core."""

import io
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton

import models
from sampan.contract.tensors import DATATYPES
from sampan.serving.repository import read_manifest
from sampan.serving.settings import Settings
from sampan.store import LocalStore, open_store
from sampan.store.add import add_model
from serving import LENGTH, Answer, Ask, Served, binary, picture, post, tensor

PATH = "/invocations"
TRITON = "application/vnd.sagemaker-triton.binary+json"
Client = triton.InferenceServerClient
ROW = [1.0, 2.0, 3.0, 4.0]
V2 = {"inputs": [tensor("x", "FP32", [1, 4], ROW)]}


@pytest.fixture(scope="module")
def invoked(zoo: Path):
    """Every way to one model of the zoo, by its name."""
    made: dict[str, Served] = {}

    def served(name: str) -> Served:
        if name not in made:
            made[name] = Served([str(open_store(str(zoo)).find(name).folder)])
        return made[name]

    return served


def ask(body: bytes, kind: str = "", accept: str = "", **headers: str) -> Ask:
    given = {"content-type": kind, "accept": accept} | {name.replace("_", "-"): text for name, text in headers.items()}
    return Ask("POST", PATH, body, {name: value for name, value in given.items() if value})


def everywhere(served: Served, asked: Ask) -> Answer:
    """The answer, which is the same by every way."""
    answers = {way: send(asked) for way, send in served.ways().items()}
    seen = {way: (one.status, one.body, one.headers.get("content-type")) for way, one in answers.items()}
    assert len(set(seen.values())) == 1, seen
    assert served.observer.failures == []
    return answers["rest"]


def wanted(served: Served, rows: Any) -> np.ndarray:
    model = served.repository.default()
    return model.infer({"x": np.array(rows, np.float32)})["y"]


def npy(array: np.ndarray, **options: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array, **options)
    return file.getvalue()


def outputs_of(answer: Answer) -> triton.InferResult:
    """What NVIDIA's client reads from an answer of SageMaker, which says the JSON's length in the Content-Type."""
    size = answer.headers["content-type"].removeprefix(f"{TRITON};json-header-size=")
    assert size.isdigit(), answer.headers
    return Client.parse_response_body(answer.body, header_length=int(size))


# --- health ----------------------------------------------------------------------------------------------------


def test_ping_says_what_is_served(invoked):
    answer = everywhere(invoked("linear"), Ask("GET", "/ping"))
    assert answer.status == 200
    assert answer.json() == {"status": "ready", "models": [{"name": "linear", "version": "1", "ready": True}]}
    assert everywhere(invoked("linear"), Ask("HEAD", "/ping")).body == b""


def test_ping_is_503_until_every_live_model_is_open(zoo: Path):
    served = Served([str(open_store(str(zoo)).find(name).folder) for name in ("linear", "several")])
    served.repository.get("several").close()
    answer = everywhere(served, Ask("GET", "/ping"))
    assert (answer.status, answer.json()["status"]) == (503, "loading")
    assert [model["ready"] for model in answer.json()["models"]] == [True, False]
    served.repository.get("several").open()
    assert everywhere(served, Ask("GET", "/ping")).status == 200


# --- JSON ------------------------------------------------------------------------------------------------------


def test_json_is_told_by_its_members(invoked):
    served = invoked("linear")
    numbers = wanted(served, [ROW]).tolist()
    forms = {
        "instances": {"predictions": numbers},
        "input_data": {"output_data": numbers},
        "inputs": {"model_name": "linear", "model_version": "1", "outputs": numbers},
        "input": {"model_name": "linear", "model_version": "1", "output": numbers},
    }
    for key, answer in forms.items():
        found = everywhere(served, post(PATH, {key: [ROW]})).json()
        assert found.keys() == answer.keys()
        np.testing.assert_allclose(found[list(answer)[-1]], numbers, rtol=1e-6)


def test_json_may_come_as_curl_sends_it(invoked):
    served, body = invoked("linear"), json.dumps({"instances": [ROW]}).encode()
    answer = everywhere(served, ask(body, "application/x-www-form-urlencoded"))
    assert answer.status == 200
    np.testing.assert_allclose(answer.json()["predictions"], wanted(served, [ROW]), rtol=1e-6)


@pytest.mark.parametrize("count", [1, 4000])
def test_v2_json_says_its_interface(invoked, zoo: Path, count: int):
    """Small bodies and those that simdjson reads."""
    served = invoked("linear")
    document = {"id": "7", "inputs": [tensor("x", "FP32", [count, 4], ROW * count)]}
    answer = everywhere(served, post(PATH, document)).json()
    assert answer["parameters"] == {"interface": read_manifest(open_store(str(zoo)).find("linear").folder).interface}
    assert (answer["model_name"], answer["model_version"], answer["id"]) == ("linear", "1", "7")
    same = served(post("/v2/models/linear/infer", document)).json()
    assert answer["outputs"] == same["outputs"]


def test_items_of_a_model_with_a_pipeline(invoked):
    for name, kind, item in (
        ("files", "application/octet-stream", b"\x00\xff \n"),
        ("files", "audio/wav", b"RIFF"),
        ("pictures", "image/png", picture()),
        ("words", "text/plain", b"red fish"),
        ("words", "text/plain; charset=utf-8", b"red fish"),
    ):
        answer = everywhere(invoked(name), ask(item, kind))
        direct = invoked(name)(Ask("POST", f"/models/{name}/predict", item, {"content-type": kind}))
        assert (answer.status, answer.body) == (200, direct.body)
    for document in ({"input": "red"}, {"inputs": ["red", "blue"]}):
        direct = invoked("words")(post("/models/words/predict", document))
        assert everywhere(invoked("words"), post(PATH, document)).body == direct.body


def test_rows_reach_a_model_with_a_pipeline_too(invoked):
    row = [float(number) for number in range(8)]
    answer = everywhere(invoked("files"), post(PATH, {"instances": [row]}))
    assert np.array(answer.json()["predictions"]).shape == (1, 3)


def test_several_inputs_by_name(invoked):
    row = {"a": [1.0, 2.0], "b": [3, 4]}
    answer = everywhere(invoked("several"), post(PATH, {"instances": [row]})).json()
    assert answer["predictions"]["total"] == [[4.0, 6.0]]


# --- V2 binary -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("datatype", [name for name in DATATYPES if name != "BF16"])
def test_tritonclients_own_bodies(invoked, datatype: str):
    array = np.array([b"a", b""], object) if datatype == "BYTES" else np.array([1, 0], DATATYPES[datatype].dtype)
    given = triton.InferInput("x", [2], datatype)
    given.set_data_from_numpy(array)
    body, size = Client.generate_request_body([given], request_id="q")
    answer = everywhere(invoked(f"echo-{datatype.lower()}"), ask(body, f"{TRITON};json-header-size={size}"))
    assert answer.status == 200
    result = outputs_of(answer)
    np.testing.assert_array_equal(result.as_numpy("y"), array)
    assert result.get_response()["id"] == "q"
    assert result.get_response()["parameters"]["interface"].startswith("sha256:")


def test_an_answer_without_blobs_is_json(invoked):
    given = triton.InferInput("x", [1, 4], "FP32")
    given.set_data_from_numpy(np.array([ROW], np.float32))
    body, size = Client.generate_request_body([given], [triton.InferRequestedOutput("y", binary_data=False)])
    answer = everywhere(invoked("linear"), ask(body, f"{TRITON};json-header-size={size}", TRITON))
    assert answer.headers["content-type"] == "application/json"
    np.testing.assert_allclose(answer.json()["outputs"][0]["data"], wanted(invoked("linear"), [ROW])[0], rtol=1e-6)


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("", TRITON),
        ("*/*", TRITON),
        (f"{TRITON}, */*;q=0.1", TRITON),
        ("application/octet-stream", "application/octet-stream"),
        ("application/json", "application/json"),
        ("application/json;q=0.2, application/octet-stream;q=0.9", "application/octet-stream"),
    ],
)
def test_accept_chooses_among_v2s_forms(invoked, accept: str, kind: str):
    head = {"inputs": [tensor("x", "FP32", [1, 4], binary_data_size=16)], "parameters": {"binary_data_output": True}}
    text = json.dumps(head).encode()
    body = text + np.array(ROW, np.float32).tobytes()
    answer = everywhere(invoked("linear"), ask(body, f"{TRITON};json-header-size={len(text)}", accept))
    assert answer.status == 200
    assert answer.headers["content-type"].partition(";")[0] == kind
    assert (b'"data"' in answer.body) is (kind == "application/json")
    if kind == "application/octet-stream":
        result = Client.parse_response_body(answer.body, header_length=int(answer.headers[LENGTH]))
        np.testing.assert_allclose(result.as_numpy("y"), wanted(invoked("linear"), [ROW]), rtol=1e-6)


def test_the_length_may_stand_in_triton_s_own_header(invoked):
    head = {"inputs": [tensor("x", "FP32", [1, 4], binary_data_size=16)]}
    asked = binary(PATH, head, np.array(ROW, np.float32).tobytes(), **{"content-type": "application/octet-stream"})
    assert everywhere(invoked("linear"), asked).json()["outputs"][0]["shape"] == [1, 3]


@pytest.mark.parametrize(
    ("parameter", "words"),
    [
        ("", "must end with ;json-header-size="),
        (";json-header-size", "json-header-size '' is not a number of bytes"),
        (";json-header-size=-1", "json-header-size '-1' is not a number of bytes"),
        (";json-header-size=1e3", "json-header-size '1e3' is not a number of bytes"),
        (";json-header-size=" + "9" * 18, "of JSON, but the body has"),
        (";json-header-size=" + "9" * 400, "is not a number of bytes"),
        (";json-header-size=4", "the body is not JSON"),
        (";json-header-size=0", "needs 80 bytes, got 94"),  # raw, as V2 has it
    ],
)
def test_a_wrong_header_size_is_one_sentence(invoked, parameter: str, words: str):
    body = json.dumps(V2).encode()
    answer = everywhere(invoked("linear"), ask(body, TRITON + parameter))
    assert answer.status == 400
    assert words in answer.error


# --- CSV -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["1,2,3,4\n5,6,7,8\n", "1.0, 2,3e0,4\r\n5,6,7,8", '\ufeff"1",2,3,4\n\n5,6,7,8\n'])
def test_csv_in_csv_out(invoked, text: str):
    answer = everywhere(invoked("linear"), ask(text.encode(), "text/csv"))
    assert (answer.status, answer.headers["content-type"]) == (200, "text/csv")
    found = np.loadtxt(io.BytesIO(answer.body), delimiter=",").astype(np.float32)
    np.testing.assert_array_equal(found, wanted(invoked("linear"), [ROW, [5, 6, 7, 8]]))


@pytest.mark.parametrize(
    ("name", "text", "answer"),
    [
        ("echo-fp32", "1\n2.5\nnan\n", "1.0\n2.5\nnan\n"),
        ("echo-int64", "1,2,-3", "1\n2\n-3\n"),
        ("echo-bool", "1\n0\n", "1\n0\n"),
        ("echo-bf16", "0.5,-2", "0.5\n-2.0\n"),
        ("scalar", "7", "7.0\n"),
        ("matrix", "1,2\n3,4", "1.0,2.0\n3.0,4.0\n"),
    ],
)
def test_csv_of_every_shape(invoked, name: str, text: str, answer: str):
    found = everywhere(invoked(name), ask(text.encode(), "text/csv"))
    assert (found.status, found.body.decode()) == (200, answer)


def test_a_line_of_a_picture(invoked):
    line = ",".join(["0.5"] * 3 * 16 * 16)
    answer = everywhere(invoked("pictures"), ask(f"{line}\n{line}\n".encode(), "text/csv", "application/json"))
    assert np.array(answer.json()["predictions"]).shape == (2, 4)


@pytest.mark.parametrize(
    ("name", "body", "words"),
    [
        ("linear", b"", "the body is empty"),
        ("linear", b" \n\n", "the body is empty"),
        ("linear", b"a,b,c,d\n1,2,3,4\n", "without a header line: could not convert string 'a'"),
        ("linear", b"1,2,3,x\n", "could not convert string 'x'"),
        ("linear", b"1,2,3,\n", "could not convert string ''"),
        ("linear", b"1,2,3,4\n1,2,3\n", "lines of equally many numbers"),
        ("linear", b"\xff\xfe", "lines of equally many numbers"),
        ("linear", b"1,2,3\n", "a line has 3 numbers, but input 'x' takes [4] an item"),
        ("echo-int64", b"0.5\n", "must hold integers that fit INT64"),
        ("echo-uint8", b"256\n", "must hold integers that fit UINT8"),
        ("echo-fp32", b"1,2\n3,4\n", "send one line or one column"),
        ("scalar", b"1,2\n", "send one line or one column"),
        ("echo-bytes", b"red\n", "takes BYTES; send JSON"),
        ("several", b"1,2\n", "text/csv fits a model with one input; this one takes 'a', 'b'"),
        ("pictures", b"1,2\n", "a line has 2 numbers, but input 'x' takes [3, 16, 16] an item"),
    ],
)
def test_csv_that_cannot_be_read_is_one_sentence(invoked, name: str, body: bytes, words: str):
    answer = everywhere(invoked(name), ask(body, "text/csv"))
    assert answer.status == 400
    assert words in answer.error.replace("'image'", "'x'")


# --- npy -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "array",
    [
        np.array([ROW, ROW], np.float32),
        np.asfortranarray(np.array([ROW, ROW[::-1]], np.float32)),
        np.array([ROW], ">f4"),
        np.array(ROW, np.float32),
    ],
    ids=["plain", "columns first", "big endian", "one item"],
)
def test_npy_in_npy_out(invoked, array: np.ndarray):
    answer = everywhere(invoked("linear"), ask(npy(array), "application/x-npy"))
    assert (answer.status, answer.headers["content-type"]) == (200, "application/x-npy")
    found = np.load(io.BytesIO(answer.body), allow_pickle=False)
    np.testing.assert_array_equal(found, wanted(invoked("linear"), array.reshape(-1, 4)))


class Bomb:
    """Loading it would be seen."""

    def __reduce__(self) -> Any:
        return pytest.fail, ("a pickle was loaded",)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "the body is empty"),
        (b"PK\x03\x04" + bytes(40), "is no npy file"),
        (pickle.dumps(Bomb()), "is no npy file"),
        (npy(np.array([Bomb()], object), allow_pickle=True), "Python objects (pickle) are never loaded"),
        (npy(np.array([ROW])), "the array is float64, but input 'x' takes FP32; save it as float32"),
        (npy(np.array(["red"])), "takes FP32"),
        (npy(np.zeros((1, 4), [("a", "f4")])), "takes FP32"),
        (npy(np.zeros((1, 3), np.float32)), "must have shape [-1, 4], got [1, 3]"),
        (npy(np.array([ROW], np.float32))[:-1], "has 16 bytes, but 15 stand in the body"),
        (npy(np.array([ROW], np.float32)) + b"x", "has 16 bytes, but 17 stand in the body"),
        (npy(np.array([ROW], np.float32)).replace(b"(1, 4)", b"(9**99,)"), "is no npy file"),
        (npy(np.array([ROW], np.float32)).replace(b"(1, 4), ", b"(-1, -4)"), "no"),
        (npy(np.zeros((0, 4), np.float32)).replace(b"(0, 4), }   ", b"(0, 999999999)"), "no"),
        (b"\x93NUMPY\x01\x00\xff\xff" + b"{" * 70_000, "is no npy file"),
        (b"\x93NUMPY\x09\x00", "is no npy file"),
    ],
)
def test_npy_that_cannot_be_read_is_one_sentence(invoked, body: bytes, words: str):
    answer = everywhere(invoked("linear"), ask(body, "application/x-npy"))
    assert answer.status == 400
    assert words in answer.error


# --- what the answer may be ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "accept", "answered"),
    [
        ("application/json", "text/csv", "text/csv"),
        ("application/json", "application/x-npy", "application/x-npy"),
        ("application/json", "text/*;q=0.5, application/x-npy;q=0.4", "text/csv"),
        ("application/json", "*/*", "application/json"),
        ("", "", "application/json"),
        ("application/vnd.kserve+json", "", "application/json"),
        ("text/csv", "application/json", "application/json"),
        ("text/csv", "application/x-npy, text/csv;q=0", "application/x-npy"),
        ("TEXT/CSV; header=absent", "*/*", "text/csv"),
        ("application/x-npy", "text/csv", "text/csv"),
    ],
)
def test_accept_chooses_the_form_of_rows(invoked, kind: str, accept: str, answered: str):
    table = {"text/csv": b"1,2,3,4\n", "application/x-npy": npy(np.array([ROW], np.float32))}
    body = table.get(kind.lower().partition(";")[0], json.dumps({"instances": [ROW]}).encode())
    answer = everywhere(invoked("linear"), ask(body, kind, accept))
    assert (answer.status, answer.headers["content-type"]) == (200, answered)


@pytest.mark.parametrize(
    ("name", "asked", "words"),
    [
        ("linear", ask(b"{}", "multipart/form-data"), "'multipart/form-data' cannot be read here"),
        ("linear", ask(b"{}", "application/jsonlines"), "'application/jsonlines' cannot be read here"),
        ("linear", ask(b'{"instances":[[1,2,3,4]]}', "", "text/html"), "it can be application/json or text/csv or"),
        ("linear", ask(json.dumps(V2).encode(), "", "text/csv"), "for, 'text/csv'; it can be " + TRITON),
        ("words", ask(b"red", "text/plain", "text/csv"), "'text/csv'; it can be application/json"),
        ("several", post(PATH, {"instances": [{"a": [1, 2], "b": [3, 4]}]}, accept="text/csv"), "application/json"),
        ("echo-bytes", post(PATH, {"instances": ["a"]}, accept="application/x-npy"), "application/json or text/csv"),
        ("linear", ask(b"", "", "", content_encoding="br"), "Content-Encoding 'br'"),
    ],
)
def test_what_cannot_be_had_is_415(invoked, name: str, asked: Ask, words: str):
    answer = everywhere(invoked(name), asked)
    assert answer.status == 415
    assert words in answer.error


@pytest.mark.parametrize(
    ("document", "words"),
    [
        (b"", "the body is empty"),
        (b"{", "the body is not JSON"),
        (b"[]", "the body must be a JSON object"),
        ({}, "the body must have 'input' or 'inputs' or 'input_data' or 'instances'"),
        ({"instances": [ROW], "inputs": [ROW]}, "not both"),
        ({"inputs": [{"name": "x", "shape": [1, 4], "data": ROW}]}, "input 'x' has no 'datatype'"),
        ({"inputs": [tensor("z", "FP32", [1, 4], ROW)]}, "input 'z' is unknown"),
        ({"instances": [[1, 2], [3]]}, "'instances' is ragged"),
    ],
)
def test_json_that_cannot_be_read_is_one_sentence(invoked, document: Any, words: str):
    answer = everywhere(invoked("linear"), post(PATH, document))
    assert answer.status == 400
    assert words in answer.error


def test_other_methods_and_an_item_for_a_model_without_a_pipeline(invoked):
    assert everywhere(invoked("linear"), Ask("GET", PATH)).headers["allow"] == "POST"
    assert everywhere(invoked("linear"), Ask("POST", "/ping")).headers["allow"] == "GET"
    assert "declares no pipeline" in everywhere(invoked("linear"), ask(b"x", "image/png")).error


def test_the_default_model_answers(served: Served):
    assert served(post(PATH, V2)).json()["model_name"] == "linear"


def test_versions_of_one_interface_say_the_same(tmp_path: Path, zoo: Path):
    store = LocalStore(tmp_path / "store")
    for seed in (0, 1):
        add_model(store, models.save(models.linear(seed=seed), tmp_path / "m.onnx"), name="m")
    add_model(store, models.save(models.linear(outputs=5), tmp_path / "m.onnx"), name="m")
    said = []
    for number in (1, 2, 3):
        one = Served([str(store.find(f"m:{number}").folder)], Settings())
        said.append(one(post(PATH, V2)).json()["parameters"]["interface"])
    assert said[0] == said[1] != said[2]
