"""magika: the type of a file from its first and last bytes. Samples: the files of this machine's Python."""

import json
import sysconfig
from collections.abc import Iterator
from itertools import chain, zip_longest
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from folder import Tools, member, save_samples

SIDE, BLOCK, PADDING, LEAST = 1024, 4096, 256, 8
SAMPLES = 200
MODEL = "magika/models/standard_v3_3"
PROJECT = Path(__file__).resolve().parents[2]
PIPELINE = f"""\
[input]
kind = "bytes"        # head and tail of a file as token ids
head = {SIDE}
tail = {SIDE}
padding = {PADDING}         # behind the head, before the tail
block = {BLOCK}          # bytes read at each end before stripping white space
strip = true          # the head's left, the tail's right

[output]
kind = "labels"
top = 3
activation = "none"
"""


def fill(wheel: Path, folder: Path, tools: Tools) -> None:
    """Model, labels, and the tokens of up to 200 files of as many types as can be found."""
    (folder / "model.onnx").write_bytes(member(wheel, f"{MODEL}/model.onnx"))
    labels = json.loads(member(wheel, f"{MODEL}/config.min.json"))["target_labels_space"]
    (folder / "labels.txt").write_text("\n".join(labels) + "\n")
    (folder / "pipeline.toml").write_text(PIPELINE)
    save_samples(folder, ({"bytes": tokens(path.read_bytes())[None]} for path in _files()))


def tokens(content: bytes) -> NDArray[np.int32]:
    """1,024 tokens from each end, the outer white space of each end's block removed."""
    head, tail = content[:BLOCK].lstrip()[:SIDE], content[-BLOCK:].rstrip()[-SIDE:]
    row = np.full(2 * SIDE, PADDING, np.int32)
    row[: len(head)] = list(head)
    row[2 * SIDE - len(tail) :] = list(tail)
    return row


def _files() -> list[Path]:
    """Files with enough content, suffix by suffix in turn, so that no type outweighs the others."""
    groups: dict[str, list[Path]] = {}
    for path in _candidates():
        groups.setdefault(path.suffix.lower() or path.name.lower(), []).append(path)
    turns = chain.from_iterable(zip_longest(*(_spread(group) for group in groups.values())))
    chosen: list[Path] = []
    for path in turns:
        if path and len(path.read_bytes()[:BLOCK].strip()) >= LEAST:
            chosen.append(path)
        if len(chosen) == SAMPLES:
            break
    return chosen


def _candidates() -> Iterator[Path]:
    paths = sysconfig.get_paths()
    own = [PROJECT / name for name in ("layers", "model_store", "scripts", "tests", "docs", "infra")]
    roots = [*own, Path(paths["stdlib"]), Path(paths["purelib"])]
    for path in chain(sorted(PROJECT.glob("*")), *(sorted(root.rglob("*")) for root in roots)):
        if path.is_file() and not path.is_symlink() and path.stat().st_size < 50_000_000:
            yield path


def _spread(group: list[Path]) -> list[Path]:
    """At most 40 of a group, evenly over it."""
    step = max(1, len(group) // 40)
    return group[::step][:40]
