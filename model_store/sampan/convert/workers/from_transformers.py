"""Hugging Face transformers: a folder with config.json, *.safetensors and, for text, a tokenizer.

    config → the class it names → sentences as tokens → from_torch's export → pipeline, labels, tokenizer

No code of the folder runs: `trust_remote_code` stays off, and weights are read from safetensors alone. A
sentence-transformers folder says how token vectors are pooled; that becomes the declared pipeline.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sampan.convert.workers.run import Export, Task

PACKAGES = ("torch", "transformers", "safetensors", "tokenizers", "onnx", "onnxscript")
INPUTS = ("input_ids", "attention_mask", "token_type_ids")
MAX_LENGTH = 512
POOLING = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls"}
CLASSIFIES = ("ForSequenceClassification", "ForImageClassification")
GENERATES = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration", "ForSpeechSeq2Seq", "ForSeq2SeqLM")
SENTENCES = (
    "The harbour is quiet at night.",
    "She sells fresh fish at the market every morning, except when the river floods.",
    "Not worth the money.",
    "How long does it take from Hong Kong to Macau by boat?",
    "I loved this film: the actors, the music, the light on the water.",
    "42",
    "Delivery was late and the parcel arrived broken, so I asked for my money back and never heard from them again.",
    "Une péniche descend la Seine.",
    "Please reset my password.",
    "The committee postponed its decision on the new bridge until the spring.",
    "HTTP 503: the server is at its limit, try again in 2 seconds",
    "Water boils at a lower temperature on a mountain, as the pressure of the air is lower there.",
    "worst hotel ever!!! dirty rooms, rude staff, cold shower",
    "A sampan is a flat-bottomed wooden boat that is found along the coasts and rivers of East Asia.",
    "yes",
)


def export(task: Task) -> Export:
    os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
    torch, transformers, _, _ = task.need(
        torch="torch", transformers="transformers", safetensors="safetensors", onnxscript="onnxscript"
    )
    transformers.utils.logging.disable_progress_bar()
    folder = Path(task.source)
    task.say("reading the source")
    model = read(task, transformers, folder)
    limit = length_limit(folder, model.config)
    names, samples = tokens(task, folder, model, limit)
    common = task.load("from_torch")
    example, axes = example_of(task, torch, names, samples)
    outputs = wanted_outputs(model)
    flat = first_outputs(torch, model, names, outputs)
    exporter = common.export_module(task, torch, flat, example, names, outputs, axes)

    def run(inputs: dict[str, Any]) -> list[Any]:
        with torch.no_grad():
            return [common.plain(tensor) for tensor in flat(*(torch.from_numpy(inputs[name]) for name in names))]

    facts = declared(folder, model, outputs, limit) if (folder / "tokenizer.json").is_file() else {}
    return task.done(exporter, run, packages=PACKAGES, samples=samples, labels=labels(model), **facts)


def read(task: Task, transformers: Any, folder: Path) -> Any:
    """The model of the class that the config names."""
    config = json.loads((folder / "config.json").read_text("utf-8"))
    named = config.get("architectures") or []
    if not named:
        raise task.refusal(f"{folder.name}/config.json names no architecture; save the model with save_pretrained")
    if named[0].endswith(GENERATES):
        raise task.refusal(
            f"{folder.name} is a {named[0]}, which answers in many steps; encoders and classifiers are taken"
        )
    found = getattr(transformers, named[0], None)
    if found is None:
        raise task.refusal(
            f"{named[0]} is not in this transformers ({transformers.__version__}); its own code is never run"
        )
    return found.from_pretrained(folder, use_safetensors=True, attn_implementation="eager").eval().float()


def wanted_outputs(model: Any) -> list[str]:
    """The head's answer; of an encoder the token vectors alone, as its pooler is rarely trained."""
    name = type(model).__name__
    if name.endswith("ForQuestionAnswering"):
        return ["start_logits", "end_logits"]
    return ["logits"] if "For" in name else ["last_hidden_state"]


def tokens(task: Task, folder: Path, model: Any, limit: int) -> tuple[list[str], list[dict[str, Any]]]:
    """Input names, and samples: sentences through the folder's own tokenizer, or what was given."""
    given = task.examples()
    if (folder / "tokenizer.json").is_file():
        return tokenised(task, folder, model, limit)
    if not given and not task.inputs:
        raise task.refusal(
            f"{folder.name} has no tokenizer.json, so nothing says what goes in; give --samples or --input"
        )
    return [entry["name"] for entry in task.inputs] or list(given), []


def tokenised(task: Task, folder: Path, model: Any, limit: int) -> tuple[list[str], list[dict[str, Any]]]:
    import inspect

    import numpy as np

    tokenizer = task.need(tokenizers="tokenizers").Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(limit)
    tokenizer.no_padding()
    accepted = inspect.signature(model.forward).parameters
    segments = getattr(model.config, "type_vocab_size", 0) > 1
    names = [name for name in INPUTS if name in accepted and (name != "token_type_ids" or segments)]
    parts = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}
    codes = [tokenizer.encode(text) for text in SENTENCES]
    samples = [{name: np.array([getattr(code, parts[name])], np.int64) for name in names} for code in codes]
    return names, [*samples, padded(samples[:3])]


def padded(samples: list[dict[str, Any]]) -> dict[str, Any]:
    """Several samples as one batch, the shorter ones filled with masked zeros."""
    import numpy as np

    length = max(next(iter(sample.values())).shape[1] for sample in samples)
    return {
        name: np.concatenate(
            [np.pad(sample[name], ((0, 0), (0, length - sample[name].shape[1]))) for sample in samples]
        )
        for name in samples[0]
    }


def example_of(
    task: Task, torch: Any, names: list[str], samples: list[dict[str, Any]]
) -> tuple[list[Any], list[dict[int, str]]]:
    """A padded batch, with a mask that has zeros; batch and sequence are variable."""
    if samples:
        return [torch.from_numpy(samples[-1][name]) for name in names], [{0: "batch", 1: "sequence"}] * len(names)
    if task.inputs:
        _, tensors, axes = task.load("from_torch").example_inputs(task, torch, None)
        return tensors, axes
    given = task.examples()
    return [torch.from_numpy(given[name][:2].copy()) for name in names], [{0: "batch"}] * len(names)


def first_outputs(torch: Any, model: Any, names: list[str], outputs: list[str]) -> Any:
    """The model as a function of its inputs by position to the wanted outputs."""

    class Flat(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, *tensors: Any) -> Any:
            answer = self.model(**dict(zip(names, tensors, strict=True)))
            return tuple(answer[name] for name in outputs)

    return Flat().eval()


def length_limit(folder: Path, config: Any) -> int:
    """Tokens of the longest text: of sentence-transformers, the tokenizer, the positions, 512; the smallest."""
    limits = [MAX_LENGTH, getattr(config, "max_position_embeddings", MAX_LENGTH)]
    for file, key in (("sentence_bert_config.json", "max_seq_length"), ("tokenizer_config.json", "model_max_length")):
        limits.append(read_json(folder / file).get(key) or MAX_LENGTH)
    if getattr(config, "model_type", "") in ("roberta", "xlm-roberta", "camembert"):
        limits[1] -= 2  # positions begin after the padding's
    return int(min(limits))


def declared(folder: Path, model: Any, outputs: list[str], limit: int) -> dict[str, Any]:
    """Pipeline, task and files of a text model."""
    text: dict[str, Any] = {"kind": "text", "tokenizer": "tokenizer.json", "max_length": limit}
    files = [str(folder / "tokenizer.json")]
    if type(model).__name__.endswith("ForSequenceClassification"):
        several = getattr(model.config, "problem_type", None) == "multi_label_classification"
        one = model.config.num_labels == 1
        output: dict[str, Any] = {
            "kind": "labels",
            "activation": "none" if one else "sigmoid" if several else "softmax",
        }
        return {"files": files, "task": "text-classification", "pipeline": {"input": text, "output": output}}
    if outputs == ["last_hidden_state"]:
        pooling, normalize = pooled(folder)
        output = {"kind": "vector", "pooling": pooling, "normalize": normalize}
        return {"files": files, "task": "embedding", "pipeline": {"input": text, "output": output}}
    return {"files": files, "pipeline": {"input": text, "output": {"kind": "tensors"}}}


def pooled(folder: Path) -> tuple[str, bool]:
    """As the sentence-transformers files say; without them the mean, at length 1."""
    modules = read_json(folder / "modules.json")
    kinds = [str(module.get("type")).rpartition(".")[2] for module in modules] if isinstance(modules, list) else []
    config = read_json(folder / "1_Pooling" / "config.json")
    modes = [pooling for key, pooling in POOLING.items() if config.get(key)]
    return (modes[0] if modes else "mean"), (not kinds or "Normalize" in kinds)


def labels(model: Any) -> list[str] | None:
    """The config's names of the classes."""
    if not type(model).__name__.endswith(CLASSIFIES) or model.config.num_labels == 1:
        return None
    return [str(model.config.id2label[index]) for index in range(model.config.num_labels)]


def read_json(path: Path) -> Any:
    return json.loads(path.read_text("utf-8")) if path.is_file() else {}
