"""Asks a server through KServe's own client; run by the Python of build/peers/kserve: kserve_client.py URL."""

import asyncio
import sys

import httpx
import numpy as np
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig

URL = sys.argv[1]
ARRAYS = {
    "FP32": np.array([0.1, -2, 3], np.float32),
    "FP64": np.array([0.1, 1e300], np.float64),
    "INT64": np.array([2**60 + 1, -1], np.int64),
    "UINT8": np.array([0, 255], np.uint8),
    "INT32": np.array([], np.int32),
    "BOOL": np.array([True, False]),
    "FP16": np.array([0.5, 2], np.float16),
    "BYTES": np.array([b"one", b"two"], object),
}


def client(protocol: str) -> InferenceRESTClient:
    return InferenceRESTClient(RESTConfig(protocol=protocol, retries=0))


def request(model: str, *inputs: tuple[str, str, np.ndarray], binary: bool) -> InferRequest:
    made = []
    for name, datatype, array in inputs:
        one = InferInput(name, list(array.shape), datatype)
        one.set_data_from_numpy(array, binary_data=binary)
        made.append(one)
    return InferRequest(
        model_name=model, infer_inputs=made, request_id="r-1", parameters={"binary_data_output": binary}
    )


async def v2() -> None:
    rest = client("v2")
    assert await rest.is_server_live(URL)
    assert await rest.is_server_ready(URL)
    assert await rest.is_model_ready(URL, "linear")
    assert not await rest.is_model_ready(URL, "nope")
    for binary in (True, False):
        for datatype, array in ARRAYS.items():
            if datatype == "FP16" and not binary:
                continue  # has no JSON form
            name = f"echo-{datatype.lower()}"
            answer = await rest.infer(URL, request(name, ("x", datatype, array), binary=binary), model_name=name)
            back = answer.outputs[0].as_numpy()
            expected = [item.decode() for item in array] if datatype == "BYTES" else array  # it decodes by itself
            assert list(back.tolist()) == list(expected), (datatype, binary, back)
            assert (answer.id, answer.model_name, answer.outputs[0].datatype) == ("r-1", name, datatype)
        a, b = np.ones((3, 2), np.float32), np.full((3, 2), 7)
        answer = await rest.infer(
            URL, request("several", ("a", "FP32", a), ("b", "INT64", b), binary=binary), model_name="several"
        )
        assert [output.name for output in answer.outputs] == ["total", "twice"]
        assert (answer.outputs[0].as_numpy() == 8).all()
    await refused(
        rest.infer(URL, request("nope", ("x", "FP32", a), binary=True), model_name="nope"), 404, "'nope' is not"
    )
    await refused(rest.infer(URL, request("linear", ("x", "FP32", a), binary=True), model_name="linear"), 400, "shape")
    await rest.close()


async def v1() -> None:
    rest = client("v1")
    assert await rest.is_model_ready(URL, "linear")
    rows = [[1.0, 2.0, 3.0, 4.0], [0.0, 0.0, 0.0, 0.0]]
    answer = await rest.infer(URL, {"instances": rows}, model_name="linear")
    assert [len(row) for row in answer["predictions"]] == [3, 3]
    await refused(rest.infer(URL, {"instances": [[1.0]]}, model_name="linear"), 400, "must have shape")
    await refused(rest.infer(URL, {"instances": rows}, model_name="nope"), 404, "model 'nope' is not here")
    await rest.close()


async def refused(call, status: int, words: str) -> None:
    try:
        answer = await call
    except httpx.HTTPStatusError as error:
        got = (error.response.status_code, words in str(error))
    else:
        got = (answer, words)
    assert got == (status, True), got


asyncio.run(v2())
asyncio.run(v1())
print("kserve's client is content")
