"""Where the figures of every epoch go: TensorBoard, MLflow, or nowhere."""

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, Protocol

from students import UsageError


class Log(Protocol):
    def write(self, epoch: int, figures: dict[str, float]) -> None: ...

    def close(self) -> None: ...


class Nowhere:
    def write(self, epoch: int, figures: dict[str, float]) -> None:
        pass

    def close(self) -> None:
        pass


class TensorBoard:
    """Event files in a folder: `tensorboard --logdir FOLDER`."""

    def __init__(self, place: str, settings: dict[str, Any]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(place)
        self._writer.add_text("settings", "\n".join(f"    {key}: {value}" for key, value in settings.items()))

    def write(self, epoch: int, figures: dict[str, float]) -> None:
        for name, value in figures.items():
            self._writer.add_scalar(name, value, epoch)

    def close(self) -> None:
        self._writer.close()


class MLflow:
    """One run of the experiment `sampan-distill`; the place is a tracking address, or a folder for SQLite."""

    def __init__(self, place: str, settings: dict[str, Any]) -> None:
        import mlflow

        self._mlflow = mlflow
        mlflow.set_tracking_uri(place if "://" in place else f"sqlite:///{place}/mlflow.db")
        mlflow.set_experiment("sampan-distill")
        mlflow.start_run()
        mlflow.log_params(settings)

    def write(self, epoch: int, figures: dict[str, float]) -> None:
        self._mlflow.log_metrics(figures, step=epoch)

    def close(self) -> None:
        self._mlflow.end_run()


KINDS: dict[str, Callable[[str, dict[str, Any]], Log]] = {"tensorboard": TensorBoard, "mlflow": MLflow}


def open_log(kind: str | None, place: str, settings: dict[str, Any]) -> Log:
    """The log that was asked for.

    Raises:
        UsageError: its package is missing in this interpreter.
    """
    if kind is None:
        return Nowhere()
    if find_spec(kind) is None:
        raise UsageError(f"--log {kind} needs the package {kind} in the torch environment: pip install {kind}")
    return KINDS[kind](place, settings)
