"""What a request never needs goes: documentation, metadata, shape hints, node names; tensors get short names.

Names of the model's inputs and outputs stay, and so do the weights. In models under a megabyte the names that
exporters write (paths of modules, repeated for each tensor) are a tenth of the file.
Source: the format, https://onnx.ai/onnx/repo-docs/IR.html (all of it optional, but the names of tensors).
"""

from itertools import count
from pathlib import Path
from typing import Any

import onnx

from sampan.compress.graph import graphs, load, save

NAME = "strip"
EXACT = True
SESSION: dict[str, str] = {}
DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


def apply(model_in: Path, model_out: Path) -> dict[str, Any]:
    before = model_in.stat().st_size
    model = load(model_in)
    model.doc_string = ""
    del model.metadata_props[:]
    found = list(graphs(model.graph))
    outside = {entry.name for graph in found for entry in (*graph.input, *graph.output)}
    short = _short_names(found, outside)
    for graph in found:
        _strip(graph, short)
    save(model, model_out)
    return {"renamed": len(short), "bytes": before - model_out.stat().st_size}


def _short_names(found: list[onnx.GraphProto], outside: set[str]) -> dict[str, str]:
    """One short name for each name, the same in every graph, so that what subgraphs read keeps its name."""
    names = [name for graph in found for node in graph.node for name in (*node.input, *node.output) if name]
    names += [tensor.name for graph in found for tensor in graph.initializer]
    inner = [name for name in dict.fromkeys(names) if name not in outside]
    fresh = (name for name in map(_text, count()) if name not in outside)
    return dict(zip(inner, fresh, strict=False))


def _strip(graph: onnx.GraphProto, short: dict[str, str]) -> None:
    graph.doc_string = ""
    del graph.value_info[:]
    del graph.metadata_props[:]
    for tensor in graph.initializer:
        tensor.name = short.get(tensor.name, tensor.name)
        tensor.doc_string = ""
    for node in graph.node:
        node.name, node.doc_string = "", ""
        del node.metadata_props[:]
        for names in (node.input, node.output):
            renamed = [short.get(name, name) for name in names]
            del names[:]
            names.extend(renamed)


def _text(number: int) -> str:
    text = ""
    while number or not text:
        number, digit = divmod(number, len(DIGITS))
        text = DIGITS[digit] + text
    return text
