"""Modules that the tests name as `module:attribute`."""

import torch
from torch import nn


class Digits(nn.Module):
    """Pixels [batch, 64] to scores [batch, 10]."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Dropout(0.2), nn.Linear(32, 10))

    def forward(self, pixels):
        return self.layers(pixels / 16)


class Reader(nn.Module):
    """Two inputs, one of any length; a dict with a tensor, a sequence and a tuple in it."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.rnn, self.head = nn.Embedding(10, 4), nn.LSTM(4, 6, batch_first=True), nn.Linear(6, 2)

    def forward(self, ids, scale):
        states, (hidden, cell) = self.rnn(self.embedding(ids))
        return {"logits": self.head(hidden[-1]) * scale, "states": states, "pair": (hidden[0], cell[0])}


class Branches(nn.Module):
    """What no exporter can write down: another answer by the values."""

    def forward(self, x):
        return x if x.sum() > 0 else -2 * x


class Wordy(nn.Module):
    def forward(self, x):
        return {"y": x, "note": "fine"}


def not_a_module() -> dict:
    return {"weights": torch.zeros(1)}
