"""A first `pipeline.py` for a model: Python text that answers as it stands, made from the model's signature.

Where the model declares how it is fed (`sampan.serving.pipelines`), that stays and only `postprocess` is written.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from sampan.contract.manifest import Manifest
from sampan.contract.tensors import DATATYPES, TensorSpec, shape_text
from sampan.serving.pipelines.pipeline import read_labels

MAX_LABELS = 2000  # in the file's text; with more, results name no classes

_HEAD = '''"""Pre- and post-processing of {ref}; the function loads this file at its start.

A request {{"input": …}} or {{"inputs": […]}} to /models/{name}/predict brings the items: any JSON value, and bytes for
{{"b64": "…"}} or for a body that is not JSON. What the client did wrong is an InvalidInputError (status 400).
To import there is Python's own library, numpy, and the extras of function.toml.
"""

from typing import Any

import numpy as np
'''
_ARRAY = '''

def _array(value: Any, name: str, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    """JSON values as an array; -1 in the shape takes any size."""
    try:
        array = np.asarray(value, dtype)
    except (ValueError, TypeError, OverflowError) as error:
        raise InvalidInputError(f"'{name}' must hold {dtype} values, all rows of one length") from error
    same_rank = array.ndim == len(shape)
    if not same_rank or any(want not in (-1, got) for want, got in zip(shape, array.shape, strict=True)):
        raise InvalidInputError(f"'{name}' must have shape {list(shape)}, got {list(array.shape)}")
    return array
'''
_COLUMN = '''

def _column(items: list[Any], name: str) -> list[Any]:
    """One input's values of all items, which are objects by input name."""
    try:
        return [item[name] for item in items]
    except (KeyError, TypeError) as error:
        raise InvalidInputError(f"every item must be an object with '{name}'") from error
'''
_VECTORS = {
    "mean": """    mask = inputs.get("attention_mask", np.ones(vectors.shape[:2]))[..., np.newaxis]
    vectors = (vectors * mask).sum(1) / np.maximum(mask.sum(1), 1e-9)
""",
    "cls": "    vectors = vectors[:, 0]\n",
    "none": "",
}


def pipeline_text(manifest: Manifest, folder: Path) -> str:
    """The file's text.

    Args:
        folder: of the version, which holds its labels.
    """
    declared = (manifest.pipeline or {}).get("input", {}).get("kind", "")
    specs = (*manifest.signature.inputs, *manifest.signature.outputs)
    batch = bool(declared) or all(spec.shape[:1] == (-1,) for spec in specs)
    labels = _labels(manifest, folder) if batch else []
    before = _left_out(declared) if declared else _preprocess(manifest.signature.inputs, batch)
    after = _postprocess(manifest, bool(labels), batch)
    head = _HEAD.format(ref=manifest.ref, name=manifest.name)
    return head + _imports(before + after) + (_listed(labels) if "LABELS" in after else "") + before + after


def _imports(body: str) -> str:
    tensors = [name for name in ("bfloat16_bits", "bfloat16_values") if name in body]
    errors = "from sampan.contract.errors import InvalidInputError\n" if "InvalidInputError" in body else ""
    lines = errors + (f"from sampan.contract.tensors import {', '.join(tensors)}\n" if tensors else "")
    return f"\n{lines}" if lines else ""


def _left_out(declared: str) -> str:
    return (
        f"\n# There is no preprocess here, as the model declares its own ({declared}); one in this file goes first.\n"
    )


def _preprocess(inputs: Sequence[TensorSpec], batch: bool) -> str:
    several = len(inputs) > 1 or not batch
    lines = [
        *([] if batch else ['    if len(items) != 1:\n        raise InvalidInputError("send one item a request")\n']),
        "    return {\n",
        *(f"        {_text(spec.name)}: {_fed(spec, batch, several)},\n" for spec in inputs),
        "    }\n",
    ]
    docs = _described(inputs)
    head = f'''

def preprocess(items: list[Any]) -> dict[str, np.ndarray]:
    """Items to the inputs of one run.

{docs}
    """
'''
    return _ARRAY + (_COLUMN if several else "") + head + "".join(lines)


def _fed(spec: TensorSpec, batch: bool, several: bool) -> str:
    name = _text(spec.name)
    value = f"_column(items, {name})" if several else "items"
    value = value if batch else f"{value}[0]"
    dtype = {"BF16": "float32", "BYTES": "str"}.get(spec.datatype, DATATYPES[spec.datatype].dtype.name)
    array = f'_array({value}, {name}, "{dtype}", {spec.shape})'
    if spec.datatype == "BYTES":
        return f'np.char.encode({array}, "utf-8").astype(object)'
    return f"bfloat16_bits({array})" if spec.datatype == "BF16" else array


def _postprocess(manifest: Manifest, labels: bool, batch: bool) -> str:
    outputs = manifest.signature.outputs
    target = (manifest.pipeline or {}).get("output", {})
    if target.get("kind") == "vector":
        body = _vectors(outputs[0], target.get("pooling", "mean"), target.get("normalize", True))
    elif labels:
        body = _best(outputs[0])
    else:
        body = _columns(outputs) if batch else _whole(outputs)
    docs = _described(outputs)
    return f'''

def postprocess(outputs: dict[str, np.ndarray], inputs: dict[str, np.ndarray]) -> list[Any]:
    """The outputs of the run, with the inputs they came from, to one JSON-ready result an item.

{docs}
    """
{body}'''


def _labels(manifest: Manifest, folder: Path) -> list[str]:
    """The labels, where there is one for each column of the first output."""
    if manifest.labels is None:
        return []
    labels = read_labels(folder / manifest.labels)
    return labels if manifest.outputs[0].shape[1:] == [len(labels)] and len(labels) <= MAX_LABELS else []


def _listed(labels: list[str]) -> str:
    texts = [json.dumps(label, ensure_ascii=False) for label in labels]
    short = f"LABELS = [{', '.join(texts)}]"
    return (
        f"\n{short}\n" if len(short) <= 120 else "\nLABELS = [\n" + "".join(f"    {text},\n" for text in texts) + "]\n"
    )


def _best(output: TensorSpec) -> str:
    return f"""    scores = {_values(output)}
    best = scores.argmax(-1)
    return [{{"label": LABELS[i], "score": float(row[i])}} for row, i in zip(scores, best, strict=True)]
"""


def _vectors(output: TensorSpec, pooling: str, normalize: bool) -> str:
    scaled = "    vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)\n"
    start = f"    vectors = {_values(output)}\n"
    return start + _VECTORS[pooling] + (scaled if normalize else "") + "    return vectors.tolist()\n"


def _columns(outputs: Sequence[TensorSpec]) -> str:
    if len(outputs) == 1:
        return f"    return {_values(outputs[0])}.tolist()\n"
    columns = "".join(f"        {_text(spec.name)}: {_values(spec)}.tolist(),\n" for spec in outputs)
    return f"""    columns = {{
{columns}    }}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
"""


def _whole(outputs: Sequence[TensorSpec]) -> str:
    members = "".join(f"            {_text(spec.name)}: {_values(spec)}.tolist(),\n" for spec in outputs)
    return f"    return [\n        {{\n{members}        }}\n    ]\n"


def _values(spec: TensorSpec) -> str:
    output = f"outputs[{_text(spec.name)}]"
    if spec.datatype == "BYTES":
        return f'np.char.decode({output}.astype(bytes), "utf-8")'
    return f"bfloat16_values({output})" if spec.datatype == "BF16" else output


def _described(specs: Sequence[TensorSpec]) -> str:
    return "\n".join(f"    {_plain(spec.name)}: {spec.datatype} {shape_text(spec.shape)}" for spec in specs)


def _text(name: str) -> str:
    return json.dumps(name)


def _plain(name: str) -> str:
    """A name inside a docstring."""
    return name.encode("unicode_escape").decode().replace('"', "'")
