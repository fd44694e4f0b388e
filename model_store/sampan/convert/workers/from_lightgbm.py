"""LightGBM: boosters (`.txt`) and estimators, by onnxmltools.

Source: https://onnx.ai/sklearn-onnx/auto_tutorial/plot_gexternal_lightgbm.html
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sampan.convert.workers.run import Export, Task

PACKAGES = ("lightgbm", "onnxmltools", "onnx", "numpy")


def export(task: Task) -> Export:
    lightgbm = task.need(lightgbm="lightgbm")
    try:
        booster = lightgbm.Booster(model_file=task.source)
    except lightgbm.basic.LightGBMError as error:
        raise task.refusal(
            f"{Path(task.source).name} is no LightGBM model: {' '.join(str(error).split())[:200]}"
        ) from error
    return export_object(task, booster)


def export_object(task: Task, model: Any) -> Export:
    """Convert a booster or an estimator that is read already."""
    lightgbm, onnxmltools = task.need(lightgbm="lightgbm", onnxmltools="onnxmltools")
    types = task.need(onnxmltools__convert__common__data_types="onnxmltools")
    booster = model if isinstance(model, lightgbm.Booster) else model.booster_
    name = task.only_name("features")
    task.say("exporting (onnxmltools)")
    initial = [(name, types.FloatTensorType([None, booster.num_feature()]))]
    proto = onnxmltools.convert_lightgbm(model, initial_types=initial, zipmap=False)
    names = [entry.name for entry in proto.graph.output]
    labels = None
    if len(names) == 2:
        task.load("from_sklearn").order_outputs(proto)
        labels = [str(name) for name in getattr(model, "classes_", ())] or None
    task.model.write_bytes(proto.SerializeToString())
    common = task.load("from_xgboost")

    def run(inputs: dict[str, Any]) -> list[Any]:
        answer = booster.predict(inputs[name])
        return common.scores(answer, len(names) == 2, getattr(model, "classes_", None))  # type: ignore[no-any-return]

    return task.done("onnxmltools", run, packages=PACKAGES, labels=labels)


def register(task: Task, kind: type) -> None:
    """Teach skl2onnx this estimator, for a pipeline that ends in it."""
    converters = task.need(onnxmltools__convert__lightgbm__operator_converters__LightGbm="onnxmltools")
    task.load("from_sklearn").register(task, kind, "LightGbm", converters.convert_lightgbm)
