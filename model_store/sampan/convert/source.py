"""What a source is, told by what is on disk: names, first bytes and the entries of archives.

Nothing is imported, unpickled or inflated beyond the few kilobytes that are looked at.
"""

import json
import pickletools
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sampan.contract.errors import InvalidInputError

MODULE = re.compile(r"(?P<module>[A-Za-z_][\w.]*|\S+\.py):(?P<attribute>[A-Za-z_]\w*)")
URI = re.compile(r"(models|runs|mlflow-artifacts):/.+")
MAX_PICKLE = 16_000_000  # bytes of a checkpoint's pickle, which holds names and no weights
# What the pickle of a state dict refers to: containers, tensors and how they are built again.
PLAIN = re.compile(
    r"collections OrderedDict|torch\._utils _rebuild_\w+|torch(\.storage)? \w*Storage|torch \w+|"
    r"torch\.serialization _get_layout|torch\.nn\.parameter (Parameter|_ParameterMeta)|numpy(\.\w+)* \w+|"
    r"_codecs encode|builtins (set|complex|slice|bytearray)"
)
RUNS_CODE = "loading it runs whatever code its author put into it"


@dataclass(frozen=True, slots=True)
class Source:
    """A foreign model: where it is, its format, the worker that reads it, and why it needs trust, if it does."""

    path: Path
    format: str
    worker: str
    stem: str
    danger: str | None = None
    attribute: str | None = None

    @property
    def name(self) -> str:
        """What the manifest calls it: no folder of this machine."""
        module = f"{self.path.name}:{self.attribute}" if self.attribute else self.path.name
        return str(self.path) if URI.fullmatch(str(self.path)) else module


def find_source(path: Path) -> Source | None:
    """The foreign model that a path, a `module:attribute` or an MLflow URI means; None for everything else.

    Raises:
        InvalidInputError: it is foreign, and lacks something that the sentence names.
    """
    if path.is_dir():
        return _folder(path)
    if path.is_file():
        return _file(path)
    return _address(str(path))


def _address(text: str) -> Source | None:
    if URI.fullmatch(text):
        parts = [part for part in re.split(r"[/@]", text.partition(":")[2]) if part]
        return Source(Path(text), "mlflow", "from_mlflow", parts[0] if text.startswith("models") else parts[-1])
    match = MODULE.fullmatch(text)
    if match is None or (match["module"].endswith(".py") and not Path(match["module"]).is_file()):
        return None
    return Source(Path(match["module"]), "torch-module", "from_torch", match["attribute"], attribute=match["attribute"])


def _folder(path: Path) -> Source | None:
    stem = path.absolute().name
    if (path / "saved_model.pb").is_file():
        return Source(path, "saved-model", "from_tensorflow", stem)
    if (path / "config.json").is_file() and _is_transformer(path / "config.json"):
        if not any(path.glob("*.safetensors")):
            raise InvalidInputError(
                f"{path} has no .safetensors; save it with save_pretrained(safe_serialization=True)"
            )
        return Source(path, "transformers", "from_transformers", stem)
    if (path / "MLmodel").is_file():
        return Source(path, "mlflow", "from_mlflow", stem)
    found = sorted(file.parent for file in path.rglob("MLmodel"))
    if len(found) > 1:
        listed = ", ".join(str(folder) for folder in found[:5])
        raise InvalidInputError(f"{path} has {len(found)} MLflow models; give one of them: {listed}")
    return Source(found[0], "mlflow", "from_mlflow", stem) if found else None


def _is_transformer(config: Path) -> bool:
    try:
        values = json.loads(config.read_text("utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(values, dict) and "model_type" in values


def _file(path: Path) -> Source | None:
    kind = path.suffix.lower()
    if kind in (".pt", ".pth", ".pt2", ".ckpt"):
        return _torch(path)
    if kind == ".keras":
        return Source(path, "keras", "from_tensorflow", path.stem)
    if kind in (".h5", ".hdf5"):
        return Source(path, "keras-h5", "from_tensorflow", path.stem)
    if kind in (".pkl", ".pickle", ".joblib"):
        return Source(path, "pickle", "from_pickle", path.stem, danger=f"{path} is a Python pickle: {RUNS_CODE}")
    if kind == ".skops":
        return Source(path, "skops", "from_pickle", path.stem)
    if kind in (".json", ".ubj", ".xgb"):
        return Source(path, "xgboost", "from_xgboost", path.stem)
    if kind in (".txt", ".lgb") and _begins(path, b"tree\n"):
        return Source(path, "lightgbm", "from_lightgbm", path.stem)
    return None


def _begins(path: Path, head: bytes) -> bool:
    with path.open("rb") as file:
        return file.read(len(head)) == head


def _torch(path: Path) -> Source:
    """TorchScript, torch.export program, state dict or pickled module, by the entries of the archive.

    Source: https://docs.pytorch.org/docs/stable/notes/serialization.html and torch/export/pt2_archive.
    """
    if not zipfile.is_zipfile(path):
        pickled = f"{path} is a Python pickle of an old torch.save: {RUNS_CODE}"
        return Source(path, "torch-pickle", "from_torch", path.stem, danger=pickled)
    with zipfile.ZipFile(path) as archive:
        entries = archive.namelist()
        inner = {entry.partition("/")[2] for entry in entries} | set(entries)
        if "archive_format" in inner or "serialized_exported_program.json" in inner:
            return Source(path, "torch-export", "from_torch", path.stem)
        if "constants.pkl" in inner:
            return Source(path, "torchscript", "from_torch", path.stem)
        checkpoints = [entry for entry in entries if entry.partition("/")[2] == "data.pkl"]
        if not checkpoints:
            raise InvalidInputError(f"{path} is a zip archive, but not one that PyTorch wrote; export the model again")
        foreign = list(_foreign(archive, checkpoints[0]))
    if not foreign:
        raise InvalidInputError(
            f"{path} holds weights alone; name the code they belong to: "
            f"sampan add package.module:Class --weights {path}"
        )
    danger = f"{path} is a pickled module ({foreign[0]}): {RUNS_CODE}"
    return Source(path, "torch-pickle", "from_torch", path.stem, danger=danger)


def _foreign(archive: zipfile.ZipFile, entry: str) -> Iterator[str]:
    """What a pickle refers to besides tensors and containers, read from its opcodes; nothing is loaded."""
    if archive.getinfo(entry).file_size > MAX_PICKLE:
        yield "larger than names alone would be"
        return
    texts: list[str] = []
    for opcode, argument, _ in pickletools.genops(archive.read(entry)):
        if opcode.name == "STACK_GLOBAL":
            argument = " ".join(texts[-2:])
        if opcode.name in ("GLOBAL", "INST", "STACK_GLOBAL"):
            if not PLAIN.fullmatch(str(argument)):
                yield str(argument).replace(" ", ".")
        elif isinstance(argument, str):
            texts.append(argument)
