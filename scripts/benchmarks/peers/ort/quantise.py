"""onnxruntime's own quantisers as they come: python quantise.py dynamic | static MODEL OUT SAMPLES

dynamic   quantize_dynamic with its defaults
static    quant_pre_process, then quantize_static with its defaults (QDQ, MinMax), calibrated on all samples;
          where symbolic shape inference fails on the model, pre-processed without it
Source: https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html.
"""

import sys
from pathlib import Path

import numpy as np
from onnxruntime.quantization import CalibrationDataReader, quantize_dynamic, quantize_static
from onnxruntime.quantization.preprocess import quant_pre_process


class Samples(CalibrationDataReader):
    """One `.npz` a sample."""

    def __init__(self, folder: Path) -> None:
        self._files = iter(sorted(folder.glob("*.npz")))

    def get_next(self) -> dict[str, np.ndarray] | None:
        file = next(self._files, None)
        return dict(np.load(file)) if file else None


def main(mode: str, model: str, out: str, samples: str) -> None:
    if mode == "dynamic":
        quantize_dynamic(model, out)
        return
    prepared = Path(out).with_name("prepared.onnx")
    try:
        quant_pre_process(model, prepared)
    except Exception as error:  # its shape inference raises bare ones
        quant_pre_process(model, prepared, skip_symbolic_shape=True)
        note = f"pre-processed without symbolic shapes, as inferring them failed: {type(error).__name__} {error}"
        Path(out).with_name("note.txt").write_text(note.strip())
    quantize_static(prepared, out, Samples(Path(samples)))


if __name__ == "__main__":
    main(*sys.argv[1:5])
