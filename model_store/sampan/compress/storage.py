"""Packs the model file of a version with Zstandard; a session unpacks it in memory when it opens.

It is no pass, as the graph stays as it is, and no recipe takes it: it saves storage and transfer, at the price
of the time and memory of unpacking at every cold start. Weights of any width shrink by about a tenth, float
weights of which half are zeros by half.
Source: https://datatracker.ietf.org/doc/html/rfc8878.
"""

from pathlib import Path

from sampan.contract.errors import ModelError
from sampan.serving.packed import ENDING, EXTRA
from sampan.store.onnx_file import read_graph

LEVEL = 9  # of 22; above, weights are no smaller and take minutes


def pack(model: Path, folder: Path, level: int = LEVEL) -> Path:
    """Write `model.onnx.zst` into a folder; gives its path. The model itself stays.

    Raises:
        ModelError: the model has external data, is packed already, or the library is not installed.
    """
    try:
        import zstandard
    except ImportError as error:
        raise ModelError(f"packing needs the package zstandard; pip install 'sampan[{EXTRA}]'") from error
    if model.suffix == ENDING:
        raise ModelError(f"{model.name} is packed already")
    if read_graph(model).external:
        raise ModelError(f"{model.name} keeps weights in files beside it and cannot be packed; store it as it is")
    target = folder / f"{model.name}{ENDING}"
    partial = target.with_name(f".{target.name}.partial")
    partial.write_bytes(zstandard.ZstdCompressor(level=level).compress(model.read_bytes()))
    return partial.replace(target)
