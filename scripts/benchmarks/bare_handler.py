"""The least that answers: numpy, onnxruntime, the source model with default settings, one run. `cold.py` mounts it."""

import base64
import json

import numpy as np
import onnxruntime as ort

DATATYPES = {"FP32": np.float32, "INT32": np.int32, "INT64": np.int64}
session = ort.InferenceSession("/mnt/source/model.onnx")


def handler(event: dict, context: object) -> dict:
    document = json.loads(base64.b64decode(event["body"]))
    feeds = {
        tensor["name"]: np.array(tensor["data"], DATATYPES[tensor["datatype"]]).reshape(tensor["shape"])
        for tensor in document["inputs"]
    }
    answers = zip(session.get_outputs(), session.run(None, feeds), strict=True)
    outputs = [
        {"name": node.name, "datatype": "FP32", "shape": list(array.shape), "data": array.ravel().tolist()}
        for node, array in answers
    ]
    headers = {"Content-Type": "application/json"}
    return {"statusCode": 200, "headers": headers, "body": json.dumps({"outputs": outputs}), "isBase64Encoded": False}
