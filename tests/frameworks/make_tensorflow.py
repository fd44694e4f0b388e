"""Small Keras models, trained on scikit-learn's digits: make_tensorflow.py FOLDER, which has digits.npz."""

import sys
from pathlib import Path

import keras
import numpy as np


def digits(folder: Path) -> None:
    keras.utils.set_random_seed(0)
    data = np.load(folder / "digits.npz")
    pictures = data["features"].reshape(-1, 8, 8, 1) / 16
    np.savez(folder / "pictures.npz", picture=pictures[:100])
    layers = keras.layers
    model = keras.Sequential([
        layers.Input((8, 8, 1)),
        layers.Conv2D(8, 3, activation="relu"),
        layers.Dropout(0.2),
        layers.Flatten(),
        layers.Dense(10, activation="softmax"),
    ])  # fmt: skip
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(pictures, data["digit"], epochs=15, verbose=0)
    model.save(folder / "cnn.keras")
    model.save(folder / "cnn.h5")
    model.export(folder / "saved", verbose=False)


def several(folder: Path) -> None:
    """Two inputs by name, one of whole numbers and of any length; two outputs by name."""
    words = keras.Input((None,), name="words", dtype="int32")
    scale = keras.Input((1,), name="scale")
    states = keras.layers.GRU(6)(keras.layers.Embedding(20, 4)(words))
    outputs = {
        "mood": keras.layers.Dense(3, activation="softmax", name="a")(states),
        "size": keras.layers.Multiply(name="b")([keras.layers.Dense(1)(states), scale]),
    }
    keras.Model({"words": words, "scale": scale}, outputs).save(folder / "several.keras")


def with_code(folder: Path) -> None:
    inputs = keras.Input((4,))
    keras.Model(inputs, keras.layers.Lambda(lambda x: x * 2)(inputs)).save(folder / "lambda.keras")

    @keras.saving.register_keras_serializable("mine")
    class Mine(keras.layers.Layer):
        def call(self, values):
            return values + 1

    keras.Model(inputs, Mine()(inputs)).save(folder / "own.keras")


if __name__ == "__main__":
    for make in (digits, several, with_code):
        make(Path(sys.argv[1]))
