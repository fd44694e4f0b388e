"""scikit-learn: estimators and pipelines, by skl2onnx.

    estimator → input types → skl2onnx (no ZipMap) → scores first, then labels

Columns that are named in the samples become one input each, as a ColumnTransformer wants them; else all features
are one matrix. Source: https://onnx.ai/sklearn-onnx (api_summary, "zipmap", initial_types).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sampan.convert.workers.run import Export, Task

PACKAGES = ("scikit-learn", "skl2onnx", "onnx", "numpy", "xgboost", "xgboost-cpu", "lightgbm", "onnxmltools")
LOCALE = "C.UTF-8"  # for words in lower case; the only one that slim images have
OPSETS = {"": 18, "ai.onnx.ml": 3}  # what every converter of a pipeline's parts writes


def export_object(task: Task, model: Any) -> Export:
    """Convert an estimator that is read already."""
    skl2onnx, _ = task.need(skl2onnx="skl2onnx", sklearn="scikit-learn")
    add_boosters(task, model)
    if isinstance(getattr(model, "classes_", None), list):
        raise task.refusal("this classifier answers several targets at once; add one estimator a target")
    columns = named_columns(task, model)
    types = initial_types(task, skl2onnx, model, columns)
    classifies = hasattr(model, "classes_") and hasattr(model, "predict")
    task.say("exporting (skl2onnx)")
    try:
        proto = to_onnx(skl2onnx, model, types, classifies)
    except (skl2onnx.common.exceptions.MissingShapeCalculator, skl2onnx.common.exceptions.MissingConverter) as error:
        raise task.refusal(
            f"skl2onnx cannot convert a part of this estimator: {' '.join(str(error).split())[:200]}"
        ) from error
    if classifies:
        order_outputs(proto)
    task.model.write_bytes(proto.SerializeToString())

    pandas = task.need(pandas="pandas") if columns else None

    def run(inputs: dict[str, Any]) -> list[Any]:
        features = frame(pandas, inputs, columns) if columns else inputs[types[0][0]]
        features = features.reshape(-1) if reads_text(model) else features
        return answers(model, features, [entry.name for entry in proto.graph.output])

    return task.done("skl2onnx", run, packages=PACKAGES, labels=class_names(model) if classifies else None)


def to_onnx(skl2onnx: Any, model: Any, types: list[tuple[str, Any]], classifies: bool) -> Any:
    """Without ZipMap, where the estimator would have one: its dictionaries are no tensors."""
    plain: dict[int, Any] = {id(step): {"locale": LOCALE} for step in parts(model) if hasattr(step, "vocabulary_")}
    try:
        options = {**plain, id(model): {"zipmap": False}} if classifies else plain
        return skl2onnx.to_onnx(model, initial_types=types, options=options, target_opset=OPSETS)
    except NameError:
        return skl2onnx.to_onnx(model, initial_types=types, options=plain, target_opset=OPSETS)


def parts(model: Any) -> list[Any]:
    """A pipeline's steps, or the estimator itself."""
    return [step for _, step in getattr(model, "steps", ())] or [model]


def named_columns(task: Task, model: Any) -> list[str]:
    """The features' names when the samples have one array for each."""
    names = [str(name) for name in getattr(model, "feature_names_in_", ())]
    given = list(task.examples()) or [entry["name"] for entry in task.inputs]
    if names and set(names) == set(given) and (len(names) > 1 or by_columns(model)):
        return names
    if names and by_columns(model):
        raise task.refusal(
            f"this pipeline treats columns by name ({', '.join(names[:5])}); "
            "give --samples FILE.npz with one array for each, such as one made from the training table"
        )
    return []


def by_columns(model: Any) -> bool:
    """Whether a step is a ColumnTransformer."""
    return any(type(step).__name__ == "ColumnTransformer" for step in parts(model))


def initial_types(task: Task, skl2onnx: Any, model: Any, columns: list[str]) -> list[tuple[str, Any]]:
    kinds = skl2onnx.common.data_types
    if columns:
        dtypes = {name: array.dtype for name, array in task.examples().items()}
        dtypes = dtypes or {entry["name"]: entry["dtype"] for entry in task.inputs}
        return [(name, column_type(kinds, dtypes[name])) for name in columns]
    if reads_text(model):
        return [(task.only_name("text"), kinds.StringTensorType([None, 1]))]
    count = getattr(model, "n_features_in_", None)
    if count is None:
        raise task.refusal("this estimator does not say how many features it takes; fit it with a current scikit-learn")
    return [(task.only_name("features"), kinds.FloatTensorType([None, count]))]


def reads_text(model: Any) -> bool:
    """Whether texts go in: the first step counts words."""
    return hasattr(parts(model)[0], "vocabulary_")


def column_type(kinds: Any, dtype: Any) -> Any:
    import numpy as np

    kind = np.dtype(dtype).kind
    if kind in "OSU":
        return kinds.StringTensorType([None, 1])
    return (kinds.Int64TensorType if kind in "iu" else kinds.FloatTensorType)([None, 1])


def frame(pandas: Any, inputs: dict[str, Any], columns: list[str]) -> Any:
    """The table that the estimator was fitted on, of columns [items, 1]."""
    return pandas.DataFrame({name: inputs[name].reshape(-1) for name in columns})


def order_outputs(proto: Any) -> None:
    """Scores before labels, under plain names: what agrees, and what labels are read from, is the first output."""
    from onnx import helper

    label, scores = proto.graph.output
    for entry, name in ((scores, "probabilities"), (label, "label")):
        if entry.name != name:
            proto.graph.node.append(helper.make_node("Identity", [entry.name], [name], name=f"to_{name}"))
            entry.name = name
    del label.type.tensor_type.shape.dim[:]
    label.type.tensor_type.shape.dim.add().dim_param = "items"
    ordered = [type(entry).FromString(entry.SerializeToString()) for entry in (scores, label)]
    del proto.graph.output[:]
    proto.graph.output.extend(ordered)


def answers(model: Any, features: Any, outputs: list[str]) -> list[Any]:
    """What scikit-learn answers, in the order of the graph's outputs."""
    if "probabilities" in outputs:
        return [class_scores(model, features), model.predict(features)]
    if not hasattr(model, "predict"):
        return [model.transform(features)]
    scores = [getattr(model, name) for name in ("transform", "decision_function") if hasattr(model, name)]
    return [model.predict(features), *(score(features) for score in scores)][: len(outputs)]


def class_scores(model: Any, features: Any) -> Any:
    """Probabilities, or what a classifier without them decides by."""
    return (model.predict_proba if hasattr(model, "predict_proba") else model.decision_function)(features)


def class_names(model: Any) -> list[str]:
    return [str(name) for name in model.classes_]


def add_boosters(task: Task, model: Any) -> None:
    """Teach skl2onnx the boosters that stand inside a pipeline."""
    for step in parts(model):
        family = type(step).__module__.split(".")[0]
        if family in ("xgboost", "lightgbm"):
            task.load(f"from_{family}").register(task, type(step))


def register(task: Task, kind: type, family: str, convert: Any) -> None:
    """Teach skl2onnx an estimator of another family.

    Source: https://onnx.ai/sklearn-onnx/auto_tutorial/plot_gexternal_lightgbm.html
    """
    skl2onnx, shapes = task.need(skl2onnx="skl2onnx", skl2onnx__common__shape_calculator="skl2onnx")
    if kind.__name__.endswith("Classifier"):
        options = {"nocl": [True, False], "zipmap": [True, False, "columns"]}
        shape = shapes.calculate_linear_classifier_output_shapes
    else:
        options, shape = None, shapes.calculate_linear_regressor_output_shapes
    skl2onnx.update_registered_converter(kind, f"{family}{kind.__name__}", shape, convert, options=options)
