"""Small PyTorch models, trained on scikit-learn's digits, and a transformer folder: make_torch.py FOLDER."""

import os
import sys
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from nets import Digits, Reader
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

SENTENCES = ["a good boat", "the tide is good", "a bad harbour", "bad fish, bad boat", "good fish", "the boat is bad"]


def digits(folder: Path) -> None:
    data = np.load(folder / "digits.npz")
    np.savez(folder / "pixels.npz", pixels=data["features"][:100])
    pixels, digit = torch.from_numpy(data["features"]), torch.from_numpy(data["digit"])
    model = Digits()
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(100):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(pixels), digit).backward()
        optimizer.step()
    model.eval()
    safetensors.torch.save_file(model.state_dict(), folder / "digits.safetensors")
    parallel = {f"module.{name}": tensor for name, tensor in model.state_dict().items()}
    torch.save({"epoch": 100, "state_dict": parallel}, folder / "checkpoint.pth")
    torch.save(model, folder / "pickled.pt")
    torch.jit.trace(model, pixels[:2]).save(folder / "script.pt")
    axes = ({0: torch.export.Dim("batch")},)
    torch.export.save(torch.export.export(model, (pixels[:2],), dynamic_shapes=axes), folder / "program.pt2")


def reader(folder: Path) -> None:
    torch.save(Reader().state_dict(), folder / "reader.pth")


class Trap:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = str(folder)

    def __reduce__(self):
        return os.mkdir, (self.folder,)


def traps(folder: Path) -> None:
    """A program and a checkpoint that run code where they are unpickled."""
    model, example = torch.nn.Linear(4, 2), torch.zeros(1, 4)
    program = torch.export.export(model, (example,))
    torch.export.save(program, folder / "plain.pt2")
    torch.save(Trap(folder / "sprung"), folder / "trap.bin")
    copy_with(folder / "plain.pt2", folder / "trap.pt2", "sample_inputs/model.pt", (folder / "trap.bin").read_bytes())
    torch.save({"weight": Trap(folder / "sprung")}, folder / "trap.pth")


def copy_with(source: Path, target: Path, ending: str, content: bytes) -> None:
    """A zip archive with one entry replaced."""
    from zipfile import ZipFile

    with ZipFile(source) as old, ZipFile(target, "w") as new:
        for entry in old.namelist():
            new.writestr(entry, content if entry.endswith(ending) else old.read(entry))


def transformer(folder: Path) -> None:
    """A two-layer BERT that tells good from bad, with its tokenizer."""
    tokenizer = Tokenizer(models.WordLevel(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.train_from_iterator(SENTENCES, trainers.WordLevelTrainer(special_tokens=["[PAD]", "[UNK]"]))
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]")
    config = BertConfig(
        vocab_size=64, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=40, id2label={0: "bad", 1: "good"}, label2id={"bad": 0, "good": 1},
    )  # fmt: skip
    model = BertForSequenceClassification(config)
    batch = fast(SENTENCES, padding=True, return_tensors="pt")
    labels = torch.tensor([int("good" in sentence) for sentence in SENTENCES])
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    for _ in range(60):
        optimizer.zero_grad()
        model(**batch, labels=labels).loss.backward()
        optimizer.step()
    model.save_pretrained(folder / "bert")
    fast.save_pretrained(folder / "bert")


if __name__ == "__main__":
    torch.manual_seed(0)
    for make in (digits, reader, traps, transformer):
        make(Path(sys.argv[1]))
