"""`python digits_teacher.py FOLDER`, in the torch environment: data.npz there becomes digits.onnx, 64-256-128-10."""

import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn

folder = Path(sys.argv[1])
torch.manual_seed(0)
torch.set_num_threads(1)
with np.load(folder / "data.npz") as archive:
    x, y = torch.from_numpy(archive["x_train"]), torch.from_numpy(archive["y_train"]).long()
model = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, 10))
optimiser = torch.optim.Adam(model.parameters(), 1e-3)
for _ in range(20):
    for rows in torch.randperm(len(x)).split(64):
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(x[rows]), y[rows]).backward()
        optimiser.step()
torch.onnx.export(
    nn.Sequential(model, nn.Softmax(-1)).eval(),
    (x[:2],),
    folder / "digits.onnx",
    input_names=["pixels"],
    output_names=["probabilities"],
    dynamic_shapes=({0: "batch"},),
    dynamo=True,
    external_data=False,
)
