"""MatMul weights stored in int8 or int4 by blocks along the inputs, multiplied as they are (MatMulNBits).

The weights stay small in memory too. Eight bits are computed with activations quantised by blocks (accuracy
level 4), four bits in float (level 1) unless told otherwise. `only` names the weights to change.
Source: operator MatMulNBits, onnxruntime, docs/ContribOperators.md; blocks: Dettmers et al. 2022
(arXiv:2208.07339), section 2.
"""

from pathlib import Path
from typing import Any

from sampan.compress.graph import layers, load, save
from sampan.compress.rewrite import use_domain
from sampan.contract.errors import ModelError

NAME = "blocks"
EXACT = False
SESSION: dict[str, str] = {}
LEVEL = {8: 4, 4: 1}  # MatMulNBits' accuracy_level: 1 computes in float32, 4 in int8


def apply(
    model_in: Path,
    model_out: Path,
    bits: int = 8,
    block: int = 128,
    level: int | None = None,
    only: list[str] | None = None,
) -> dict[str, Any]:
    try:
        from onnxruntime.quantization.matmul_nbits_quantizer import DefaultWeightOnlyQuantConfig, MatMulNBitsQuantizer
    except ImportError as error:
        raise ModelError(f"the pass blocks needs onnx-ir ({error}); pip install 'sampan[compress]'") from error
    model = load(model_in)
    found = layers(model, ("MatMul",))
    left = [layer.node.name for layer in found if only is not None and layer.name not in only]
    if len(left) == len(found):
        save(model, model_out)
        return {"computed": 0, "stored": 0}
    level = LEVEL[bits] if level is None else level
    options = {"block_size": block, "is_symmetric": True, "accuracy_level": level, "bits": bits}
    config = DefaultWeightOnlyQuantConfig(**options)
    tool = MatMulNBitsQuantizer(model, **options, nodes_to_exclude=left, algo_config=config)
    tool.process()
    use_domain(tool.model.model)
    save(tool.model.model, model_out)
    return {"computed": len(found) - len(left), "bits": bits, "block": block, "level": level}
