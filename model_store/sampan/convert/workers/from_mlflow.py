"""MLflow: a model's folder, or `models:/…` and `runs:/…` in the tracking server that MLflow is set to.

    URI → folder → MLmodel → the flavour's own file → its framework's worker

Source: https://mlflow.org/docs/latest/ml/model (the MLmodel file, flavours).
"""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sampan.convert.workers.run import Export, Task

# flavour → files of it by ending: the worker and the format; the first that is there is taken
FLAVOURS: dict[str, tuple[tuple[str, str, str], ...]] = {
    "onnx": ((".onnx", "", "onnx"),),
    "transformers": (("config.json", "from_transformers", "transformers"),),
    "keras": ((".keras", "from_tensorflow", "keras"), (".h5", "from_tensorflow", "keras-h5")),
    "tensorflow": (
        ("saved_model.pb", "from_tensorflow", "saved-model"),
        (".keras", "from_tensorflow", "keras"),
        (".h5", "from_tensorflow", "keras-h5"),
    ),
    "xgboost": tuple((ending, "from_xgboost", "xgboost") for ending in (".ubj", ".json", ".xgb")),
    "lightgbm": (
        (".lgb", "from_lightgbm", "lightgbm"),
        (".txt", "from_lightgbm", "lightgbm"),
        (".pkl", "from_pickle", "pickle"),
    ),
    "pytorch": ((".pt2", "from_torch", "torch-export"), (".pth", "from_torch", "torch-pickle")),
    "sklearn": ((".skops", "from_pickle", "skops"), (".pkl", "from_pickle", "pickle")),
}
FOLDERS = ("saved_model.pb", "config.json")  # what these lie in is the source
PICKLED = ("pickle", "torch-pickle")


def export(task: Task) -> Export:
    folder = Path(task.source)
    if not folder.is_dir():
        task.say("asking MLflow")
        folder = downloaded(task)
    config = task.need(yaml="PyYAML").safe_load((folder / "MLmodel").read_text("utf-8"))
    flavours = config.get("flavors", {}) if isinstance(config, dict) else {}
    chosen = next((name for name in FLAVOURS if name in flavours), None)
    if chosen is None:
        found = ", ".join(flavours) or "none"
        raise task.refusal(f"{folder.name}/MLmodel has the flavours {found}; {', '.join(FLAVOURS)} are taken")
    source, worker, kind = located(task, folder, chosen)
    if kind == "onnx":
        shutil.copytree(source.parent, task.folder, dirs_exist_ok=True)
        (Path(task.folder) / source.name).replace(task.model)
        return task.done("none", None)
    if kind in PICKLED:
        task.danger(f"{source.name} is a Python pickle: loading it runs whatever code its author put into it")
    inner = dataclasses.replace(task, source=str(source), format=kind, worker=worker)
    return inner.load(worker).export(inner)  # type: ignore[no-any-return]


def downloaded(task: Task) -> Path:
    mlflow = task.need(mlflow="mlflow")
    try:
        return Path(mlflow.artifacts.download_artifacts(artifact_uri=task.source, dst_path=f"{task.folder}/mlflow"))
    except mlflow.exceptions.MlflowException as error:
        where = mlflow.get_tracking_uri()
        raise task.refusal(
            f"MLflow at {where} does not give {task.source}: {' '.join(str(error).split())[:200]}"
        ) from error


def located(task: Task, folder: Path, flavour: str) -> tuple[Path, str, str]:
    """The flavour's own file or folder, the worker that reads it, and its format."""
    for ending, worker, kind in FLAVOURS[flavour]:
        files = sorted(path for path in folder.rglob(f"*{ending}") if path.is_file())
        if files:
            return (files[0].parent if ending in FOLDERS else files[0]), worker, kind
    wanted = ", ".join(ending for ending, _, _ in FLAVOURS[flavour])
    raise task.refusal(
        f"{folder.name} is of MLflow's flavour {flavour}, but has no file of it ({wanted}); log it again"
    )
