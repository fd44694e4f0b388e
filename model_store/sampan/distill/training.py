"""How a student is trained: what a person may set, and what is told of each epoch."""

from typing import Any, Literal

import msgspec

from sampan.contract.errors import InvalidInputError

Loss = Literal["kl", "ce", "mse", "cosine"]
Optimiser = Literal["adam", "sgd", "adamw"]
Schedule = Literal["constant", "cosine", "step", "plateau"]
LogKind = Literal["tensorboard", "mlflow"]
RATES = {"adam": 2e-3, "adamw": 2e-3, "sgd": 0.05}  # learning rates where none is given
MAX_PROCESSES = 64


class Training(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of a training run.

    `student` is `mlp:64,32`, `conv1d:…`, `cnn:…`, a family alone, `module:function` or `file.py:function`; None
    derives one from the signature. `loss` None takes kl where the teacher tells classes, else mse. `l1` and `l2`
    weigh the absolute and squared weights. `patience`: epochs without a better validation loss, 0 never stops
    early. `held_out` is the share of rows kept back for validation, and as much again for the final proof.
    """

    student: str | None = None
    loss: Loss | None = None
    temperature: float = 2.0
    optimiser: Optimiser = "adam"
    lr: float | None = None
    momentum: float = 0.9
    l1: float = 0.0
    l2: float = 0.0
    schedule: Schedule = "cosine"
    epochs: int = 100
    batch: int = 64
    patience: int = 15
    held_out: float = 0.1
    seed: int = 0
    processes: int = 1

    def check(self) -> None:
        """Refuse values that cannot train.

        Raises:
            InvalidInputError: names the setting and what it may be.
        """
        least = {"epochs": 1, "batch": 1, "patience": 0, "processes": 1, "l1": 0, "l2": 0, "momentum": 0, "seed": 0}
        for name, lowest in least.items():
            if getattr(self, name) < lowest:
                raise InvalidInputError(f"--{name} must be at least {lowest}, got {getattr(self, name)}")
        if self.temperature <= 0 or self.rate <= 0:
            raise InvalidInputError("--temperature and --lr must be above 0")
        if not 0 < self.held_out <= 0.4:
            raise InvalidInputError(f"--held-out must be above 0 and at most 0.4, got {self.held_out}")
        if self.processes > min(MAX_PROCESSES, self.batch):
            raise InvalidInputError(
                f"--processes {self.processes} is more than the rows of a batch, or {MAX_PROCESSES}"
            )

    @property
    def rate(self) -> float:
        return RATES[self.optimiser] if self.lr is None else self.lr

    def settings(self) -> dict[str, Any]:
        """Everything that was set or stood as default, for the recipe and the log."""
        return {**msgspec.to_builtins(self), "lr": self.rate}


class Epoch(msgspec.Struct, frozen=True, kw_only=True):
    """One epoch: mean loss of the training and validation rows, agreement on the validation rows, learning rate.

    `agreement` is the share of same classes where the teacher tells classes, else the mean cosine.
    """

    epoch: int
    loss: float
    validation_loss: float
    agreement: float
    lr: float


class Trained(msgspec.Struct, frozen=True, kw_only=True):
    """What the worker says of a finished run; `early`: stopped by `patience`."""

    student: str
    parameters: int
    torch: str
    epochs: int
    best_epoch: int
    early: bool
    history: list[Epoch]
