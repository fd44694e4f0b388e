"""Flask: rows as JSON, or the image's float32 bytes as the body."""

import os

import numpy as np
import onnxruntime as ort
from flask import Flask, jsonify, request

options = ort.SessionOptions()
options.intra_op_num_threads = int(os.environ["BENCH_THREADS"])
session = ort.InferenceSession(os.environ["BENCH_MODEL"], options)
name = session.get_inputs()[0].name
app = Flask(__name__)


@app.post("/predict")
def predict():
    rows = np.asarray(request.get_json()["input_data"], np.float32)
    return jsonify(output_data=session.run(None, {name: rows})[0].tolist())


@app.post("/binary")
def binary():
    image = np.frombuffer(request.get_data(), np.float32).reshape(1, 3, 320, 320)
    return jsonify(output_data=session.run(None, {name: image})[0].tolist())
