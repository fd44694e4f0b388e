"""FastAPI: rows as JSON, or the image's float32 bytes as the body."""

import os

import numpy as np
import onnxruntime as ort
from fastapi import FastAPI, Request
from pydantic import BaseModel

options = ort.SessionOptions()
options.intra_op_num_threads = int(os.environ["BENCH_THREADS"])
session = ort.InferenceSession(os.environ["BENCH_MODEL"], options)
name = session.get_inputs()[0].name
app = FastAPI()


class Rows(BaseModel):
    input_data: list


@app.post("/predict")
async def predict(rows: Rows):
    return {"output_data": session.run(None, {name: np.asarray(rows.input_data, np.float32)})[0].tolist()}


@app.post("/binary")
async def binary(request: Request):
    image = np.frombuffer(await request.body(), np.float32).reshape(1, 3, 320, 320)
    return {"output_data": session.run(None, {name: image})[0].tolist()}
