"""BentoML: rows as JSON, or the image's float32 bytes as the body."""

import os

import bentoml
import numpy as np
import onnxruntime as ort


@bentoml.service(workers=1, traffic={"timeout": 60}, logging={"access": {"enabled": False}})
class Model:
    def __init__(self):
        options = ort.SessionOptions()
        options.intra_op_num_threads = int(os.environ["BENCH_THREADS"])
        self.session = ort.InferenceSession(os.environ["BENCH_MODEL"], options)
        self.name = self.session.get_inputs()[0].name

    @bentoml.api
    def predict(self, input_data: np.ndarray) -> np.ndarray:
        return self.session.run(None, {self.name: input_data.astype(np.float32)})[0]

    @bentoml.api
    def binary(self, image: bytes, /) -> np.ndarray:
        x = np.frombuffer(image, np.float32).reshape(1, 3, 320, 320)
        return self.session.run(None, {self.name: x})[0]
