"""Constants folded, dead and doubled nodes removed, neighbours fused, by onnxslim: standard operators stay.

Unlike `optimize` it gives a graph of plain ONNX, which the passes after it can read. Folding may store a
tensor that was cheap to compute, so the file can grow.
Source: https://github.com/inisis/OnnxSlim (extra `compress`).
"""

from pathlib import Path
from typing import Any

from sampan.compress.graph import graphs, load, save
from sampan.contract.errors import ModelError

NAME = "simplify"
EXACT = True
SESSION: dict[str, str] = {}


def apply(model_in: Path, model_out: Path) -> dict[str, Any]:
    try:
        import onnxslim
    except ImportError as error:
        raise ModelError("the pass simplify needs onnxslim; install it with pip install 'sampan[compress]'") from error
    model = load(model_in)
    before = sum(len(graph.node) for graph in graphs(model.graph))
    slim = onnxslim.slim(model)
    save(slim, model_out)
    return {"nodes_before": before, "nodes_after": sum(len(graph.node) for graph in graphs(slim.graph))}
