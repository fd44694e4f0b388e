"""LitServe: rows as JSON, or the image's float32 bytes as an uploaded file."""

import os
import sys

import litserve as ls
import numpy as np
import onnxruntime as ort
from fastapi import Request


class Model(ls.LitAPI):
    def setup(self, device):
        options = ort.SessionOptions()
        options.intra_op_num_threads = int(os.environ["BENCH_THREADS"])
        self.session = ort.InferenceSession(os.environ["BENCH_MODEL"], options)
        self.name = self.session.get_inputs()[0].name

    def decode_request(self, request: Request):
        if "image" in request:
            return np.frombuffer(request["image"].file.read(), np.float32).reshape(1, 3, 320, 320)
        return np.asarray(request["input_data"], np.float32)

    def predict(self, x):
        return self.session.run(None, {self.name: x})[0]

    def encode_response(self, output):
        return {"output_data": output.tolist()}


if __name__ == "__main__":
    server = ls.LitServer(Model(), accelerator="cpu", workers_per_device=1)
    server.run(
        host="127.0.0.1", port=int(sys.argv[1]), num_api_servers=1, log_level="warning", generate_client_file=False
    )
