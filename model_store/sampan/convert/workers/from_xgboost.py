"""XGBoost: boosters (`.json`, `.ubj`) and estimators, by onnxmltools.

Source: https://onnx.ai/sklearn-onnx/auto_tutorial/plot_gexternal_xgboost.html
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sampan.convert.workers.run import Export, Task

PACKAGES = ("xgboost", "xgboost-cpu", "onnxmltools", "onnx", "numpy")


def export(task: Task) -> Export:
    xgboost = task.need(xgboost="xgboost")
    booster = xgboost.Booster()
    try:
        booster.load_model(task.source)
    except xgboost.core.XGBoostError as error:
        raise task.refusal(
            f"{Path(task.source).name} is no XGBoost model: {' '.join(str(error).split())[:200]}"
        ) from error
    return export_object(task, booster)


def export_object(task: Task, model: Any) -> Export:
    """Convert a booster or an estimator that is read already."""
    xgboost, onnxmltools = task.need(xgboost="xgboost", onnxmltools="onnxmltools")
    types = task.need(onnxmltools__convert__common__data_types="onnxmltools")
    booster = model if isinstance(model, xgboost.Booster) else model.get_booster()
    name = task.only_name("features")
    booster.feature_names = None  # the converter reads a feature's number from its name
    task.say("exporting (onnxmltools)")
    initial = [(name, types.FloatTensorType([None, booster.num_features()]))]
    proto = onnxmltools.convert_xgboost(model, initial_types=initial)
    names = [entry.name for entry in proto.graph.output]
    labels = None
    if len(names) == 2:
        task.load("from_sklearn").order_outputs(proto)
        labels = [str(name) for name in getattr(model, "classes_", ())] or None
    task.model.write_bytes(proto.SerializeToString())

    def run(inputs: dict[str, Any]) -> list[Any]:
        answer = booster.predict(xgboost.DMatrix(inputs[name]))
        return scores(answer, len(names) == 2, getattr(model, "classes_", None))

    return task.done("onnxmltools", run, packages=PACKAGES, labels=labels)


def scores(answer: Any, classifies: bool, classes: Any) -> list[Any]:
    """Probabilities of all classes and the most likely one; a single column is the second class's."""
    import numpy as np

    if not classifies:
        return [answer]
    columns = np.stack([1 - answer, answer], axis=1) if answer.ndim == 1 else answer
    best = columns.argmax(1)
    return [columns, best if classes is None else np.asarray(classes)[best]]


def register(task: Task, kind: type) -> None:
    """Teach skl2onnx this estimator, for a pipeline that ends in it."""
    converters = task.need(onnxmltools__convert__xgboost__operator_converters__XGBoost="onnxmltools")
    task.load("from_sklearn").register(task, kind, "XGBoost", converters.convert_xgboost)
