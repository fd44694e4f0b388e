"""Export MiniLM to ONNX and tokenise sentences; runs in the environment with torch.

export_minilm.py SOURCE SENTENCES.json FOLDER: reads config.json, model.safetensors and tokenizer.json of
SOURCE; writes model.onnx and samples/ into FOLDER, and says how far ONNX and torch are apart.
"""

import json
import logging
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from tokenizers import Tokenizer
from transformers import AutoModel
from transformers.utils.logging import disable_progress_bar

INPUTS = ("input_ids", "attention_mask", "token_type_ids")
OPSET, LENGTH, TOLERANCE = 18, 128, 1e-4


class Encoder(torch.nn.Module):
    """The transformer with its last hidden state as the only output; pooling is the pipeline's work."""

    def __init__(self, source: Path) -> None:
        super().__init__()
        self.model = AutoModel.from_pretrained(source, attn_implementation="eager")

    def forward(self, input_ids, attention_mask, token_type_ids):
        answer = self.model(input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids)
        return answer.last_hidden_state


def main(source: Path, sentences: Path, folder: Path) -> int:
    disable_progress_bar()
    logging.disable(logging.WARNING)
    model = Encoder(source).eval()
    export(model, folder / "model.onnx")
    samples = tokenise(folder / "tokenizer.json", json.loads(sentences.read_text()))
    (folder / "samples").mkdir()
    for index, sample in enumerate(samples):
        np.savez_compressed(folder / "samples" / f"{index:04d}.npz", **sample)
    error = distance(model, folder / "model.onnx", [*samples[::8], padded(samples[:4])])
    print(f"minilm: ONNX and torch differ by at most {error:.1e}")
    return int(not error < TOLERANCE)


def export(model: Encoder, path: Path) -> None:
    """Batch and sequence are variable; notes of the exporter (traces of its own source) are left out."""
    ids = torch.arange(1000, 1018).reshape(2, 9)
    mask = torch.tensor([[1] * 9, [1] * 5 + [0] * 4])  # without zeros the mask would be left out of the graph
    axes = {0: torch.export.Dim("batch", max=4096), 1: torch.export.Dim("sequence", max=512)}
    program = torch.onnx.export(
        model,
        (ids, mask, torch.zeros_like(ids)),
        input_names=INPUTS,
        output_names=["last_hidden_state"],
        dynamic_shapes=(axes,) * 3,
        opset_version=OPSET,
        dynamo=True,
        verbose=False,
    )
    proto = program.model_proto
    for item in (proto, proto.graph, *proto.graph.node, *proto.graph.value_info, *proto.graph.initializer):
        item.ClearField("metadata_props")
        item.ClearField("doc_string")
    onnx.save(proto, path)


def tokenise(path: Path, texts: list[str]) -> list[dict[str, np.ndarray]]:
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.enable_truncation(LENGTH)
    samples = []
    for text in texts:
        code = tokenizer.encode(text)
        rows = (code.ids, code.attention_mask, code.type_ids)
        samples.append({name: np.array([row], np.int64) for name, row in zip(INPUTS, rows, strict=True)})
    return samples


def padded(samples: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Several samples as one batch, the shorter ones filled with masked zeros."""
    length = max(sample["input_ids"].shape[1] for sample in samples)

    def row(array: np.ndarray) -> np.ndarray:
        return np.pad(array, ((0, 0), (0, length - array.shape[1])))

    return {name: np.concatenate([row(sample[name]) for sample in samples]) for name in INPUTS}


def distance(model: Encoder, path: Path, samples: list[dict[str, np.ndarray]]) -> float:
    """Largest absolute difference between onnxruntime's and torch's answers."""
    session = onnxruntime.InferenceSession(path)
    worst = 0.0
    for sample in samples:
        with torch.no_grad():
            want = model(*(torch.from_numpy(sample[name]) for name in INPUTS)).numpy()
        worst = max(worst, float(np.abs(session.run(None, sample)[0] - want).max()))
    return worst


if __name__ == "__main__":
    sys.exit(main(*(Path(argument) for argument in sys.argv[1:])))
