"""Conversion without a framework: what a source is, who may run code, and a worker that fails in every way.

The worker here is a shell script in place of an interpreter; it speaks the protocol of `convert/workers/run.py`.
tests/frameworks converts with the real ones.
"""

import os
import pickle
import signal
import stat
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest

import models
from sampan.contract.errors import ConversionError, InvalidInputError
from sampan.contract.manifest import decode_manifest
from sampan.convert import Options, find_source
from sampan.convert.options import parse_input
from sampan.store import LocalStore
from sampan.store.add import add_model, find_models
from sampan.store.verify import verify


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A file that is a Keras model by its name; the worker below does not look into it."""
    path = tmp_path / "Tiny.keras"
    path.write_bytes(b"not looked at")
    return path


def worker(tmp_path: Path, code: str) -> Path:
    """An interpreter that runs this code, with `task`, `folder` and `say` at hand, whatever it is asked to run."""
    script = tmp_path / "worker.py"
    script.write_text(f"""
import json, os, sys, time
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
task = json.loads(sys.argv[2])
folder = Path(task["folder"])
def say(**message):
    print(json.dumps(message), flush=True)
{code}
""")
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} {script} "$@"\n')
    python.chmod(python.stat().st_mode | stat.S_IXUSR)
    return python


EXPORTS = """
import models, numpy as np
models.save(models.linear(), folder / "model.onnx")
facts = dict(exporter="by hand", files=[], pipeline=None, labels=["a", "b", "c"], task="toy")
say(progress="exporting")
say(**facts, versions={"numpy": np.__version__}, proves=True)
sys.stdin.readline()
(folder / "outputs").mkdir()
random = np.random.default_rng(0)
w, b = random.normal(size=(4, 3)).astype("f4"), random.normal(size=3).astype("f4")
for file in sorted((folder / "inputs").iterdir()):
    x = np.load(file)["x"]
    ANSWER
say(done=True)
"""
RIGHT = 'np.savez(folder / "outputs" / file.name, **{"0": x @ w + b})'


def add(store: LocalStore, tmp_path: Path, source: Path, code: str, **options: object):
    return add_model(store, source, options=Options(python=worker(tmp_path, code), **options))


def refused(store: LocalStore, tmp_path: Path, source: Path, code: str, words: str, **options: object) -> None:
    """Refused with these words; the store is as it was."""
    with pytest.raises(ConversionError, match=words):
        add(store, tmp_path, source, code, **options)
    assert store.names() == []
    assert not list((store.root / ".staging").iterdir())


def test_a_conversion_that_agrees_is_recorded(store: LocalStore, tmp_path: Path, source: Path):
    told: list[str] = []
    added = add(store, tmp_path, source, EXPORTS.replace("ANSWER", RIGHT), progress=told.append)
    manifest = added.version.manifest
    conversion = manifest.conversion
    assert conversion is not None
    assert (conversion.source, conversion.format, conversion.exporter) == ("Tiny.keras", "keras", "by hand")
    assert conversion.versions == {"numpy": np.__version__}
    assert conversion.samples == manifest.golden.count
    assert [entry.output for entry in conversion.differences] == ["y"]
    assert conversion.differences[0].relative_error < 1e-5
    assert conversion.differences[0].top1_agreement == 1
    assert manifest.task == "toy"
    assert (added.version.folder / "labels.txt").read_text() == "a\nb\nc\n"
    assert told[0] == "converting Tiny.keras: exporting"
    assert decode_manifest((added.version.folder / "manifest.json").read_bytes(), "it") == manifest
    assert verify(store).sound


def test_what_is_said_beats_what_the_source_says(store: LocalStore, tmp_path: Path, source: Path):
    (tmp_path / "labels.txt").write_text("x\ny\nz\n")
    python = worker(tmp_path, EXPORTS.replace("ANSWER", RIGHT))
    added = add_model(store, source, labels=tmp_path / "labels.txt", task="mine", options=Options(python=python))
    assert added.version.manifest.task == "mine"
    assert (added.version.folder / "labels.txt").read_text() == "x\ny\nz\n"


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (RIGHT.replace("+ b", "+ b + 0.05"), r"do not agree: output 'y' differs by up to 0\.05, of values up to"),
        (RIGHT.replace("+ b", "* np.nan"), "do not agree: output 'y' differs"),
        (RIGHT.replace("x @ w + b", "(x @ w + b)[:, :2]"), r"output 'y' has shape \[1, 2\] there and \[1, 3\] in ONNX"),
        (RIGHT.replace("+ b}", '+ b, "1": x}'), r"has 2 outputs, but its ONNX model has 1 \('y'\)"),
    ],
    ids=["values", "nan", "shape", "count"],
)
def test_a_conversion_that_does_not_agree_is_refused(
    store: LocalStore, tmp_path: Path, source: Path, answer: str, words: str
):
    refused(store, tmp_path, source, EXPORTS.replace("ANSWER", answer), words)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (
            "sys.exit('the tongue is too short')",
            r"converting Tiny.keras crashed \(exit code 1\): the tongue is too short",
        ),
        ("os.kill(os.getpid(), 11)", r"crashed \(signal 11, SIGSEGV\)"),
        ("say(refused='it has no inputs; save it again')", "^it has no inputs; save it again$"),
        ("say(failed='ValueError: no')", "converting Tiny.keras failed: ValueError: no"),
        ("say(missing=['tf2onnx'])", "needs tf2onnx, which .*python does not have; install it there .*--python"),
        ("say(exporter='x', proves=True, versions={})", "wrote no model"),
        ("(folder / 'model.onnx').write_bytes(b'hello'); say(exporter='x')", "the exporter wrote no ONNX model"),
        ("print('hello')", "--python .*python does not run Python: it printed b'hello"),
        ("print(17)", "does not run Python"),
        (EXPORTS.replace("ANSWER", "sys.exit(3)"), r"crashed \(exit code 3\)"),
    ],
    ids=["exit", "signal", "refusal", "failure", "missing", "nothing", "no onnx", "words", "number", "late exit"],
)
def test_a_worker_that_fails_is_one_sentence(store: LocalStore, tmp_path: Path, source: Path, code: str, words: str):
    refused(store, tmp_path, source, code, words)


def test_a_worker_that_hangs_is_stopped_with_its_children(store: LocalStore, tmp_path: Path, source: Path):
    code = f"""
import subprocess
child = subprocess.Popen(["sleep", "60"])
Path({str(tmp_path / "child")!r}).write_text(str(child.pid))
time.sleep(60)
"""
    refused(store, tmp_path, source, code, "took longer than 1 seconds and was stopped", timeout=1.0)
    assert gone(int((tmp_path / "child").read_text()))


def gone(pid: int) -> bool:
    """Whether a process has ended, or is about to be collected."""
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        try:
            if Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z":
                return True
        except FileNotFoundError:
            return True
    return False


def test_an_interrupted_add_leaves_the_store_as_it_was(store: LocalStore, tmp_path: Path, source: Path):
    python = worker(tmp_path, f"Path({str(tmp_path / 'pid')!r}).write_text(str(os.getpid())); time.sleep(60)")
    command = [sys.executable, "-m", "sampan.cli.main", "--store", store.root, "add", source, "--python", python]
    process = subprocess.Popen(command, stderr=subprocess.PIPE)
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)
    assert process.returncode == 1
    assert gone(int((tmp_path / "pid").read_text()))
    assert store.names() == []
    assert not list((store.root / ".staging").iterdir())


def test_a_framework_that_is_not_installed_is_named(store: LocalStore, source: Path):
    with pytest.raises(ConversionError, match=r"needs tensorflow-cpu, tf2onnx, which .* does not have; install"):
        add_model(store, source, options=Options(python=Path(sys.executable)))


def test_an_interpreter_that_is_not_there_is_named(store: LocalStore, source: Path):
    with pytest.raises(InvalidInputError, match="--python /no/python cannot be started: No such file"):
        add_model(store, source, options=Options(python=Path("/no/python")))


class Trap:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = str(folder)

    def __reduce__(self):
        return os.mkdir, (self.folder,)


@pytest.mark.parametrize("name", ["m.pkl", "m.pickle", "m.joblib", "m.pt", "m.pth"])
def test_a_pickle_is_not_opened_without_trust(store: LocalStore, tmp_path: Path, name: str):
    (tmp_path / name).write_bytes(pickle.dumps(Trap(tmp_path / "sprung")))
    with pytest.raises(InvalidInputError, match=r"is a Python pickle.*runs whatever code.*--trust"):
        add_model(store, tmp_path / name)
    assert not (tmp_path / "sprung").exists()


def test_a_trusted_pickle_is_warned_of(store: LocalStore, tmp_path: Path):
    (tmp_path / "m.pkl").write_bytes(pickle.dumps({"a": 1}))
    told: list[str] = []
    with pytest.raises(ConversionError):
        add_model(store, tmp_path / "m.pkl", options=Options(trust=True, warn=told.append))
    assert told == [f"{tmp_path}/m.pkl is a Python pickle: loading it runs whatever code its author put into it"]


def archive(path: Path, *entries: str, pickled: object = None) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        for entry in entries:
            file.writestr(entry, pickle.dumps(pickled, protocol=2) if entry.endswith("data.pkl") else b"")
    return path


def files(folder: Path, **texts: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (folder / name.replace("__", ".")).write_text(text)
    return folder


def kind(path: Path) -> str | None:
    found = find_source(path)
    return found.format if found else None


def test_a_torch_file_is_told_by_its_entries(tmp_path: Path):
    assert kind(archive(tmp_path / "a.pt", "m/data.pkl", "m/constants.pkl", "m/code/net.py")) == "torchscript"
    assert kind(archive(tmp_path / "b.pt2", "m/archive_format", "m/models/model.json")) == "torch-export"
    assert kind(archive(tmp_path / "c.pt2", "serialized_exported_program.json", "version")) == "torch-export"
    assert (
        kind(archive(tmp_path / "d.pt", "m/data.pkl", "m/data/0", pickled=Trap(tmp_path / "sprung"))) == "torch-pickle"
    )
    with pytest.raises(InvalidInputError, match=r"holds weights alone; .*sampan add package\.module:Class --weights"):
        find_source(archive(tmp_path / "e.pth", "m/data.pkl", "m/data/0", pickled={"layer.weight": [1.0]}))
    with pytest.raises(InvalidInputError, match="not one that PyTorch wrote"):
        find_source(archive(tmp_path / "f.pt", "readme.txt"))
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("m.keras", b"", "keras"),
        ("m.h5", b"", "keras-h5"),
        ("m.hdf5", b"", "keras-h5"),
        ("m.json", b"{}", "xgboost"),
        ("m.ubj", b"{", "xgboost"),
        ("m.skops", b"", "skops"),
        ("m.txt", b"tree\nversion=v4\n", "lightgbm"),
        ("labels.txt", b"cat\ndog\n", None),
        ("m.onnx", b"", None),
    ],
)
def test_a_file_is_told_by_its_name(tmp_path: Path, name: str, content: bytes, expected: str | None):
    (tmp_path / name).write_bytes(content)
    assert kind(tmp_path / name) == expected


def test_a_folder_is_told_by_its_files(tmp_path: Path):
    bert = files(tmp_path / "bert", config__json='{"model_type": "bert"}', model__safetensors="")
    assert kind(bert) == "transformers"
    assert find_models(bert) == [(bert, "bert")]
    assert kind(files(tmp_path / "saved", saved_model__pb="")) == "saved-model"
    assert kind(files(tmp_path / "tracked", MLmodel="flavors: {}")) == "mlflow"
    assert kind(files(tmp_path / "plain", config__json='{"name": "x"}')) is None
    with pytest.raises(InvalidInputError, match=r"has no \.safetensors; save it with save_pretrained"):
        find_source(files(tmp_path / "half", config__json='{"model_type": "bert"}', pytorch_model__bin=""))


def test_a_store_of_mlflow_with_several_models_asks_for_one(tmp_path: Path):
    first = files(tmp_path / "mlruns/0/models/m-1/artifacts", MLmodel="")
    found = find_source(tmp_path / "mlruns")
    assert found is not None
    assert found.path == first
    files(tmp_path / "mlruns/0/models/m-2/artifacts", MLmodel="")
    with pytest.raises(InvalidInputError, match=r"has 2 MLflow models; give one of them: .*m-1.*m-2"):
        find_source(tmp_path / "mlruns")


def test_a_folder_with_onnx_files_is_what_it_was(tmp_path: Path):
    folder = files(tmp_path / "both", config__json='{"model_type": "bert"}', model__safetensors="")
    models.save(models.linear(), folder / "model.onnx")
    assert find_models(folder) == [(folder / "model.onnx", "both")]


def test_an_address_is_told_by_its_form(tmp_path: Path):
    (tmp_path / "net.py").write_text("")
    module = find_source(Path("package.nets:Small"))
    assert module is not None
    assert (module.format, module.stem, module.name) == ("torch-module", "Small", "package.nets:Small")
    assert kind(tmp_path / "net.py:Small") == "torch-module"
    assert kind(tmp_path / "none.py:Small") is None
    uri = find_source(Path("models:/fraud/3"))
    assert uri is not None
    assert (uri.format, uri.stem, uri.name) == ("mlflow", "fraud", "models:/fraud/3")
    assert kind(Path("runs:/0a1b/model")) == "mlflow"
    assert kind(Path("nothing")) is None


def test_an_input_is_a_name_a_datatype_and_sizes():
    assert parse_input("x:FP32[batch, 3, 224, -1]") == {"name": "x", "dtype": "float32", "shape": ["batch", 3, 224, -1]}
    assert parse_input("ids:int64[]") == {"name": "ids", "dtype": "int64", "shape": []}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x", "is not NAME:DATATYPE"),
        ("x:FP32", "is not NAME:DATATYPE"),
        ("x:FLOAT[1]", "the datatype must be one of BOOL, "),
        ("x:BYTES[1]", "the datatype must be one of BOOL, "),
        ("x:FP32[a b,0]", "'0' is no size"),
        ("x:FP32[1,,2]", "'' is no size"),
    ],
)
def test_an_input_that_cannot_be_read_is_refused(text: str, words: str):
    with pytest.raises(InvalidInputError, match=words):
        parse_input(text)


def test_options_that_do_not_belong_are_refused(store: LocalStore, tmp_path: Path, source: Path):
    weights = tmp_path / "w.safetensors"
    with pytest.raises(InvalidInputError, match="no such weights"):
        add_model(store, source, options=Options(weights=weights))
    weights.write_bytes(b"")
    with pytest.raises(InvalidInputError, match=r"--weights belongs to a package\.module:Class"):
        add_model(store, source, options=Options(weights=weights))
    with pytest.raises(InvalidInputError, match="no such samples"):
        add_model(store, source, samples=tmp_path / "none.npz")
