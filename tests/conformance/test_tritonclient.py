"""NVIDIA's own client, tritonclient[http], against `sampan serve` in both modes."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

from sampan.contract.tensors import DATATYPES
from servers import MODES, running


@pytest.fixture(scope="module", params=MODES)
def client(request: pytest.FixtureRequest, zoo: Path) -> Iterator[triton.InferenceServerClient]:
    with running(zoo, "--mode", request.param) as server, triton.InferenceServerClient(server.address) as client:
        yield client


def values(datatype: str) -> np.ndarray:
    if datatype == "BYTES":
        return np.array([b"one", "zwölf".encode(), b""], object)
    if datatype == "BF16":
        import ml_dtypes

        return np.array([0.5, -2, 3], ml_dtypes.bfloat16)
    if datatype == "BOOL":
        return np.array([True, False, True])
    if DATATYPES[datatype].is_float:
        return np.array([0.1, -2, 3e4], DATATYPES[datatype].dtype)
    limits = np.iinfo(DATATYPES[datatype].dtype)
    return np.array([limits.min, 1, limits.max], DATATYPES[datatype].dtype)


def given(array: np.ndarray, datatype: str = "FP32", name: str = "x", binary: bool = True) -> triton.InferInput:
    made = triton.InferInput(name, list(array.shape), datatype)
    made.set_data_from_numpy(array, binary_data=binary)
    return made


def wanted(name: str = "y", binary: bool = True, classes: int = 0) -> triton.InferRequestedOutput:
    return triton.InferRequestedOutput(name, binary_data=binary, class_count=classes)


def test_health_and_metadata(client):
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("linear")
    assert client.is_model_ready("linear", "2")
    assert not client.is_model_ready("nope")
    assert not client.is_model_ready("linear", "9")
    assert client.get_server_metadata()["name"] == "sampan"
    metadata = client.get_model_metadata("several")
    assert metadata["platform"] == "onnx_onnxv1"
    assert metadata["inputs"] == [
        {"name": "a", "datatype": "FP32", "shape": [-1, 2]},
        {"name": "b", "datatype": "INT64", "shape": [-1, 2]},
    ]
    assert client.get_model_metadata("linear", "2")["versions"] == ["1", "2"]


def test_repository_index(client):
    rows = {(row["name"], row["version"]): row["state"] for row in client.get_model_repository_index()}
    assert rows["linear", "1"] == "READY"
    assert rows["linear", "2"] in ("READY", "UNAVAILABLE")


@pytest.mark.parametrize("datatype", DATATYPES)
def test_every_datatype_goes_round(client, datatype: str):
    array = values(datatype)
    result = client.infer(f"echo-{datatype.lower()}", [given(array, datatype)])
    back = result.as_numpy("y")
    assert back.shape == array.shape
    assert back.tolist() == array.tolist()
    assert result.get_output("y")["datatype"] == datatype


@pytest.mark.parametrize("datatype", [name for name in DATATYPES if name not in ("FP16", "BF16")])
def test_every_datatype_goes_round_as_json(client, datatype: str):
    array = values(datatype)
    result = client.infer(
        f"echo-{datatype.lower()}", [given(array, datatype, binary=False)], outputs=[wanted(binary=False)]
    )
    assert "parameters" not in result.get_output("y")
    assert result.as_numpy("y").astype(array.dtype).tolist() == (
        [item.decode() for item in array] if datatype == "BYTES" else array.tolist()
    )


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False])
@pytest.mark.parametrize(("model", "shape"), [("echo-fp32", (0,)), ("matrix", (0, 3)), ("matrix", (2, 3))])
def test_shapes(client, model: str, shape: tuple[int, ...], binary_in: bool, binary_out: bool):
    array = np.ones(shape, np.float32)
    result = client.infer(model, [given(array, binary=binary_in)], outputs=[wanted(binary=binary_out)])
    assert result.as_numpy("y").shape == shape


def test_a_scalar(client):
    result = client.infer("scalar", [given(np.array(2.5, np.float32))])
    assert result.get_output("y")["shape"] == []
    assert result.as_numpy("y").item() == 2.5


@pytest.mark.parametrize("binary", [(True, True), (True, False), (False, True), (False, False)])
def test_several_inputs_and_outputs_in_any_form(client, binary: tuple[bool, bool]):
    a, b = np.ones((3, 2), np.float32), np.full((3, 2), 2**60 + 1)
    inputs = [given(b, "INT64", "b", binary[1]), given(a, "FP32", "a", binary[0])]
    result = client.infer("several", inputs, outputs=[wanted("twice", binary[0]), wanted("total", binary[1])])
    assert [entry["name"] for entry in result.get_response()["outputs"]] == ["twice", "total"]
    assert (result.as_numpy("twice") == 2 * b).all()
    assert (result.as_numpy("total") == a + b.astype(np.float32)).all()
    only = client.infer("several", inputs, outputs=[wanted("total")])
    assert only.as_numpy("twice") is None


@pytest.mark.parametrize("request_algorithm", [None, "gzip", "deflate"])
@pytest.mark.parametrize("response_algorithm", [None, "gzip", "deflate"])
def test_compression_both_ways(client, request_algorithm: str | None, response_algorithm: str | None):
    for count in (3, 5000):
        array = np.arange(count, dtype=np.float32)
        result = client.infer(
            "echo-fp32",
            [given(array)],
            request_compression_algorithm=request_algorithm,
            response_compression_algorithm=response_algorithm,
        )
        assert (result.as_numpy("y") == array).all()


def test_classification(client):
    array = np.array([[1, 5, 3, 4], [9, 0, 0, 8]], np.float32)
    result = client.infer("matrix", [given(array)], outputs=[wanted(classes=2)])
    assert result.get_output("y")["datatype"] == "BYTES"
    assert result.as_numpy("y").tolist() == [[b"5.000000:1", b"4.000000:3"], [b"9.000000:0", b"8.000000:3"]]


def test_an_id_and_a_version_come_back(client):
    array = np.ones((1, 4), np.float32)
    answer = client.infer("linear", [given(array)], model_version="2", request_id="r-1").get_response()
    assert (answer["id"], answer["model_version"], answer["model_name"]) == ("r-1", "2", "linear")


def test_several_requests_under_way(client):
    arrays = [np.full(100, number, np.float32) for number in range(20)]
    waiting = [client.async_infer("echo-fp32", [given(array)]) for array in arrays]
    for array, answer in zip(arrays, waiting, strict=True):
        assert (answer.get_result().as_numpy("y") == array).all()


@pytest.mark.parametrize(
    ("model", "version", "array", "status", "message"),
    [
        ("nope", "", np.ones((1, 4), np.float32), "404", "model 'nope' is not here; there are "),
        ("linear", "9", np.ones((1, 4), np.float32), "404", "model 'linear' has no version '9' here; it has 1, 2"),
        ("linear", "", np.ones((1, 3), np.float32), "400", "input 'x' must have shape [-1, 4], got [1, 3]"),
        ("echo-int8", "", np.ones(1, np.float32), "400", "input 'x' must be INT8, got FP32"),
    ],
)
def test_errors_are_our_sentence(client, model: str, version: str, array: np.ndarray, status: str, message: str):
    with pytest.raises(InferenceServerException) as raised:
        client.infer(model, [given(array)], model_version=version)
    assert raised.value.message().startswith(message)
    assert raised.value.status() == status
