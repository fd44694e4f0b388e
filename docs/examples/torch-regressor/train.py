"""A regressor in PyTorch: 100 weeks of CO2 → 200 hidden units → the next 100 weeks; exported with torch.onnx.export.

    python train.py FOLDER [--optimiser sgd|adam]… [--l1 X] [--l2 X] [--epochs N]

Reads FOLDER/data.npz (x_train, y_train), trains once with each optimiser, keeps the model with the smaller
validation loss as FOLDER/model.onnx, and writes what every epoch gave to FOLDER/history.json.
"""

import argparse
import copy
import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

RATES = {"sgd": 0.05, "adam": 1e-3}
VALIDATION = 0.15  # of the windows, the latest
PATIENCE = 15  # epochs without a better validation loss
PPM = 5.0  # one unit of the data
METRICS = (("metric", "loss"), ("val_metric", "val_loss"))


class Regressor(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(100, 200), nn.ReLU(), nn.Linear(200, 100))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


def penalty(model: nn.Module, l1: float, l2: float) -> Tensor:
    weights = [weight for weight in model.parameters() if weight.ndim > 1]
    return l1 * sum(weight.abs().sum() for weight in weights) + l2 * sum(weight.square().sum() for weight in weights)


def error(model: nn.Module, x: Tensor, y: Tensor) -> float:
    """Mean squared error."""
    with torch.no_grad():
        return float(nn.functional.mse_loss(model(x), y))


def fit(optimiser: str, x: Tensor, y: Tensor, options: argparse.Namespace) -> tuple[nn.Module, dict]:
    torch.manual_seed(options.seed)
    model = Regressor()
    step = {
        "sgd": torch.optim.SGD(model.parameters(), RATES["sgd"], momentum=0.9),
        "adam": torch.optim.Adam(model.parameters(), RATES["adam"]),
    }[optimiser]
    learnt = round(len(x) * (1 - VALIDATION))
    check = (x[learnt:], y[learnt:])
    run: dict[str, list[float]] = {"loss": [], "val_loss": []}
    kept = copy.deepcopy(model.state_dict())
    while len(run["loss"]) < options.epochs:
        for rows in torch.randperm(learnt).split(32):
            step.zero_grad()
            loss = nn.functional.mse_loss(model(x[rows]), y[rows]) + penalty(model, options.l1, options.l2)
            loss.backward()
            step.step()
        run["loss"].append(error(model, x[:learnt], y[:learnt]))
        run["val_loss"].append(error(model, *check))
        best = int(np.argmin(run["val_loss"]))
        if best + 1 == len(run["loss"]):
            kept = copy.deepcopy(model.state_dict())
        if len(run["loss"]) - best > PATIENCE:
            break
    model.load_state_dict(kept)
    print(
        f"{optimiser:>5}: {len(run['loss'])} epochs, best {best + 1}; "
        f"loss {run['loss'][best]:.4f}, validation {run['val_loss'][best]:.4f}",
        flush=True,
    )
    ppm = {name: [PPM * value**0.5 for value in run[key]] for name, key in METRICS}
    return model, run | ppm


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--optimiser", action="append", choices=["sgd", "adam"], help="repeatable; default: both")
    parser.add_argument("--l1", type=float, default=0.0, help="weight of the absolute weights in the loss")
    parser.add_argument("--l2", type=float, default=1e-5, help="weight of the squared weights in the loss")
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with np.load(options.folder / "data.npz") as archive:
        data = {name: torch.from_numpy(archive[name]) for name in archive.files}
    names = options.optimiser or ["sgd", "adam"]
    fitted = {name: fit(name, data["x_train"], data["y_train"], options) for name in names}
    best = min(fitted, key=lambda name: min(fitted[name][1]["val_loss"]))
    model = fitted[best][0].eval()
    off = PPM * error(model, data["x_test"], data["y_test"]) ** 0.5
    print(f"kept: {best}, {off:.2f} ppm off on the test years (root mean square)", flush=True)
    torch.onnx.export(
        model,
        (data["x_test"][:2],),
        options.folder / "model.onnx",
        input_names=["x"],
        output_names=["y"],
        dynamic_shapes={"x": {0: "batch"}},
        dynamo=True,
        external_data=False,
        verbose=False,
    )
    history = {"title": "PyTorch CO2, 100-200-100", "loss": "mean squared error", "metric": "error in ppm"}
    runs = {name: run for name, (_, run) in fitted.items()}
    (options.folder / "history.json").write_text(json.dumps(history | {"runs": runs}))


if __name__ == "__main__":
    main()
