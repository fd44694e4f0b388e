"""A binary classifier in Keras, odd digit or even: 100 pixels → Dense 128 → Dense 64 → one probability.

    python train.py FOLDER [--optimiser sgd|adam]… [--l1 X] [--l2 X] [--epochs N]

Reads FOLDER/data.npz (x_train, y_train), trains once with each optimiser, keeps the model with the smaller
validation loss as FOLDER/model.keras, and writes what every epoch gave to FOLDER/history.json.
"""

import argparse
import json
from pathlib import Path

import keras
import numpy as np

RATES = {"sgd": 0.01, "adam": 1e-3}


def build(l1: float, l2: float) -> keras.Model:
    penalty = {"kernel_regularizer": keras.regularizers.L1L2(l1, l2)}
    return keras.Sequential(
        [
            keras.Input((100,), name="pixels"),
            keras.layers.Dense(128, activation="relu", **penalty),
            keras.layers.Dense(64, activation="relu", **penalty),
            keras.layers.Dense(1, activation="sigmoid", **penalty),
        ]
    )


def fit(optimiser: str, data: dict[str, np.ndarray], options: argparse.Namespace) -> tuple[keras.Model, dict]:
    keras.utils.set_random_seed(options.seed)
    model = build(options.l1, options.l2)
    chosen = {"sgd": keras.optimizers.SGD(RATES["sgd"], momentum=0.9), "adam": keras.optimizers.Adam(RATES["adam"])}
    model.compile(chosen[optimiser], loss="binary_crossentropy", metrics=["accuracy"])
    history = model.fit(
        data["x_train"],
        data["y_train"],
        batch_size=32,
        epochs=options.epochs,
        validation_split=0.15,
        callbacks=[keras.callbacks.EarlyStopping(patience=5, restore_best_weights=True)],
        verbose=0,
    ).history
    best = int(np.argmin(history["val_loss"]))
    print(
        f"{optimiser:>5}: {len(history['loss'])} epochs, best {best + 1}; loss {history['loss'][best]:.4f}, "
        f"validation {history['val_loss'][best]:.4f}, accuracy {history['val_accuracy'][best]:.1%}",
        flush=True,
    )
    run = {"loss": history["loss"], "val_loss": history["val_loss"]}
    return model, run | {"metric": history["accuracy"], "val_metric": history["val_accuracy"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--optimiser", action="append", choices=["sgd", "adam"], help="repeatable; default: both")
    parser.add_argument("--l1", type=float, default=0.0, help="weight of the absolute weights in the loss")
    parser.add_argument("--l2", type=float, default=1e-5, help="weight of the squared weights in the loss")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with np.load(options.folder / "data.npz") as archive:
        data = dict(archive)
    fitted = {name: fit(name, data, options) for name in options.optimiser or ["sgd", "adam"]}
    best = min(fitted, key=lambda name: min(fitted[name][1]["val_loss"]))
    model = fitted[best][0]
    _, accuracy = model.evaluate(data["x_test"], data["y_test"], verbose=0)
    print(f"kept: {best}, accuracy {accuracy:.1%} on the test digits, by other writers", flush=True)
    model.save(options.folder / "model.keras")
    history = {"title": "Keras odd or even, 100-128-64-1", "loss": "binary cross-entropy", "metric": "accuracy"}
    runs = {name: run for name, (_, run) in fitted.items()}
    (options.folder / "history.json").write_text(json.dumps(history | {"runs": runs}))


if __name__ == "__main__":
    main()
