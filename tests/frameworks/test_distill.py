"""Students that are really trained, in the torch environment that scripts/frameworks makes."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from onnx import helper

from models import build, classifier, convolution, linear, save
from sampan.contract.errors import InvalidInputError, ModelError
from sampan.distill.engine import Log, distill
from sampan.distill.training import Training
from sampan.serving.golden import Sample
from sampan.serving.session import OnnxSession
from sampan.store import open_store
from sampan.store.add import add_model

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / "build" / "frameworks" / "torch" / "bin" / "python"
WHEELS = ROOT / "build" / "examples" / "wheels"
TOLERANCE = 1e-3  # in probabilities, of N processes against one (docs/guides/distill.md)
QUICK = {"epochs": 12, "batch": 32, "lr": 0.01}

pytestmark = [pytest.mark.framework, pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(autouse=True)
def torch():
    if not PYTHON.exists() and os.environ.get("REQUIRE_FRAMEWORKS") != "1":
        pytest.skip("build/frameworks/torch is not there; scripts/frameworks torch makes it")


def taught(tmp_path: Path, model, shape, *, name="teacher", **labels):
    """A store with a teacher, and 600 rows for its student."""
    store = open_store(tmp_path / "store")
    add_model(store, save(model, tmp_path / f"{name}.onnx"), **labels)
    spec = store.find(name).manifest.signature.inputs[0]
    rows = np.random.default_rng(7).normal(size=(600, *shape)).astype(np.float32)
    np.savez(tmp_path / "rows.npz", **{spec.name: rows})
    return store, tmp_path / "rows.npz"


def digits_teacher(tmp_path: Path):
    """A digit classifier of 64-256-128-10, trained here on the digits of scikit-learn's wheel, and all their pixels."""
    sys.path[:0] = [str(ROOT / "docs" / "examples"), str(ROOT / "scripts" / "real_models")]
    import real_data

    if not list(WHEELS.glob("scikit_learn-*.whl")) and os.environ.get("REQUIRE_FRAMEWORKS") != "1":
        pytest.skip(f"{WHEELS} has no wheel of scikit-learn; docs/examples/keras-digits/run fetches it")
    data = real_data.digits(WHEELS, 8)
    np.savez(tmp_path / "data.npz", **data)
    np.savez(tmp_path / "rows.npz", pixels=np.concatenate([data["x_train"], data["x_test"]]))
    np.savez(tmp_path / "golden.npz", pixels=data["x_test"][:64])
    (tmp_path / "labels.txt").write_text("\n".join("0123456789"))
    subprocess.run([PYTHON, Path(__file__).with_name("digits_teacher.py"), tmp_path], check=True, capture_output=True)
    store = open_store(tmp_path / "store")
    paths = {"samples": tmp_path / "golden.npz", "labels": tmp_path / "labels.txt"}
    add_model(store, tmp_path / "digits.onnx", **paths)
    return store, tmp_path / "rows.npz"


def answers(version) -> np.ndarray:
    session = OnnxSession(version.model_path)
    found: list[Sample] = version.golden()
    return np.concatenate([next(iter(session.run(sample.inputs).values())) for sample in found])


def test_digits_in_two_processes_and_in_one(tmp_path):
    """Real digits; steps of 37 rows leave an odd row out, so the processes' shares differ."""
    store, rows = digits_teacher(tmp_path)
    settings = {"batch": 37, "schedule": "plateau", "l1": 1e-6, "l2": 1e-5, "epochs": 25}
    one, two = (
        distill(store, "digits:1", rows, python=PYTHON, training=Training(**settings, processes=count))
        for count in (1, 2)
    )
    np.testing.assert_allclose(answers(two.version), answers(one.version), atol=TOLERANCE)
    losses = [[epoch.validation_loss for epoch in outcome.report.training.history] for outcome in (one, two)]
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-3)
    assert one.report.times_smaller >= 4
    assert min(outcome.report.agreement["top1_agreement"] for outcome in (one, two)) >= 0.95
    assert one.version.manifest.parent == "digits:1"


def test_the_same_seed_gives_the_same_bytes(tmp_path):
    store, rows = taught(tmp_path, classifier(), (64,))
    settings = Training(**QUICK, student="mlp:8")
    first, second = (
        distill(store, "teacher:1", rows, python=PYTHON, training=settings, gate=["cosine>=0"]) for _ in range(2)
    )
    assert (first.existed, second.existed, second.version.ref) == (False, True, "teacher:2")


@pytest.mark.parametrize(
    "settings",
    [
        {"loss": "mse", "optimiser": "sgd", "schedule": "constant"},
        {"loss": "ce", "optimiser": "adamw", "schedule": "step"},
        {"loss": "cosine"},
        {"loss": "kl", "temperature": 5.0},
    ],
)
def test_every_loss_teaches(tmp_path, settings):
    store, rows = taught(tmp_path, classifier(), (64,))
    report = distill(
        store, "teacher", rows, python=PYTHON, training=Training(**QUICK | settings), gate=["top1_agreement>=0.2"]
    ).report
    assert report.training.history[-1].validation_loss < report.training.history[0].validation_loss


def test_an_image_teacher_gets_a_convolutional_student(tmp_path):
    store, rows = taught(tmp_path, convolution(channels=64), (3, 16, 16))
    settings = Training(**QUICK, student="cnn:4,8")
    outcome = distill(store, "teacher", rows, python=PYTHON, training=settings, gate=["cosine>=0.5"])
    assert outcome.report.training.student == "cnn:4,8"
    assert "Conv" in outcome.version.manifest.operators
    assert outcome.report.agreement["cosine"] > 0.5


def test_tokens_get_an_embedding_and_keep_their_variable_length(tmp_path):
    table = np.random.default_rng(0).normal(size=(300, 8)).astype(np.float32)
    nodes = [
        helper.make_node("Gather", ["table", "tokens"], ["vectors"]),
        helper.make_node("ReduceMean", ["vectors"], ["y"], axes=[1], keepdims=0),
    ]
    outputs = [("y", "FP32", ("batch", 8))]
    model = build(nodes, [("tokens", "INT32", ("batch", "length"))], outputs, {"table": table})
    store = open_store(tmp_path / "store")
    add_model(store, save(model, tmp_path / "teacher.onnx"))
    np.savez(tmp_path / "rows.npz", tokens=np.random.default_rng(1).integers(0, 250, (200, 40)).astype(np.int32))
    settings = Training(epochs=2, student="conv1d:4,8")
    outcome = distill(store, "teacher", tmp_path / "rows.npz", python=PYTHON, training=settings, gate=["cosine>=-1"])
    session = OnnxSession(outcome.version.model_path)
    assert session.signature.inputs[0].shape == (-1, -1)
    beyond = session.run({"tokens": np.full((3, 77), 299, np.int32)})
    assert beyond["y"].shape == (3, 8)


def test_patience_stops_early(tmp_path):
    store, rows = taught(tmp_path, linear(), (4,))
    settings = Training(epochs=60, lr=3.0, optimiser="adam", schedule="constant", patience=2, student="mlp:4")
    report = distill(store, "teacher", rows, python=PYTHON, training=settings, gate=["relative_error<=9"]).report
    assert report.training.early
    assert report.training.epochs == report.training.best_epoch + 2 < 60


OWN = """
from torch import nn

def student(signature):
    assert signature["inputs"][0]["name"] == "x"
    return nn.Linear(4, {outputs})
"""


def test_a_student_of_ones_own_code(tmp_path):
    store, rows = taught(tmp_path, linear(), (4,))
    (tmp_path / "mine.py").write_text(OWN.format(outputs=3))
    settings = Training(student=f"{tmp_path / 'mine.py'}:student", epochs=40, lr=0.05, loss="mse")
    outcome = distill(store, "teacher", rows, python=PYTHON, training=settings, gate=["relative_error<=0.05"])
    assert outcome.version.manifest.recipe["parameters"] == 15


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"student": "forest"}, ModelError, "there is no student 'forest'; take mlp, conv1d, cnn with widths, or"),
        ({"student": "cnn"}, ModelError, "the student cnn takes one input of images"),
        ({"student": "{folder}/mine.py:student"}, ModelError, r"gives \[2, 5\] for output 'y', it must be \[2, 3\]"),
        ({"student": "{folder}/mine.py:teacher"}, ModelError, "cannot be found: .* no attribute 'teacher'"),
        ({"lr": 1e30, "optimiser": "sgd"}, ModelError, "the loss is not a finite number in epoch 1; lower the rate"),
    ],
)
def test_what_cannot_be_trained_is_said_in_one_sentence(tmp_path, settings, error, words):
    store, rows = taught(tmp_path, linear(), (4,))
    (tmp_path / "mine.py").write_text(OWN.format(outputs=5))
    if "student" in settings:
        settings = {"student": settings["student"].format(folder=tmp_path)}
    with pytest.raises(error, match=words):
        distill(store, "teacher", rows, python=PYTHON, training=Training(**settings))
    assert store.versions("teacher") == [1]


@pytest.mark.parametrize(("kind", "pattern"), [("tensorboard", "events.out.tfevents.*"), ("mlflow", "mlflow.db")])
def test_epochs_are_logged(tmp_path, kind, pattern):
    store, rows = taught(tmp_path, linear(), (4,))
    log = Log(kind, str(tmp_path / "runs"))
    settings = Training(epochs=2, student="mlp:4")
    distill(store, "teacher", rows, python=PYTHON, training=settings, log=log, gate=["relative_error<=9"])
    (found,) = (tmp_path / "runs").glob(pattern)
    assert b"validation_loss" in found.read_bytes()


def test_the_command_prints_the_reference_and_draws_the_curve(tmp_path):
    store, rows = taught(tmp_path, classifier(), (64,))
    words = ["teacher", "--data", rows, "--python", PYTHON, "--epochs", "5", "--curve", tmp_path / "curve.png"]
    command = [sys.executable, "-m", "sampan.cli.main", "--store", store.location, "distill", *map(str, words)]
    done = subprocess.run([*command, "--gate", "cosine>=0.1"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "teacher:2\n"), done.stderr
    assert "times smaller than teacher:1" in done.stderr
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
    missed = subprocess.run(
        [*command, "--gate", "cosine>=1", "-o", "json"], capture_output=True, text=True, check=False
    )
    assert missed.returncode == 1
    assert json.loads(missed.stdout)["ref"] is None
    assert missed.stderr.strip().splitlines()[-1].startswith("Error: the student misses cosine>=1")


STUCK = """
import os

def student(signature):
    with open({ready!r}, "w") as file:
        file.write(str(os.getpid()))
    open({never!r}).read()
"""


def test_an_interrupt_leaves_no_version_and_no_process(tmp_path):
    store, rows = taught(tmp_path, classifier(), (64,))
    ready, never = tmp_path / "ready", tmp_path / "never"
    os.mkfifo(ready)
    os.mkfifo(never)
    (tmp_path / "stuck.py").write_text(STUCK.format(ready=str(ready), never=str(never)))
    words = ["teacher", "--data", rows, "--python", PYTHON, "--student", f"{tmp_path / 'stuck.py'}:student"]
    command = [sys.executable, "-m", "sampan.cli.main", "--store", store.location, "distill", *map(str, words)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        worker = int(ready.read_text())
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    assert process.returncode != 0
    with pytest.raises(ProcessLookupError):
        os.kill(worker, 0)
    assert store.versions("teacher") == [1]
    assert not list(Path(store.location, ".staging").glob("*/*"))


@pytest.mark.parametrize("processes", [1, 2])
def test_an_interpreter_without_torch_is_told(tmp_path, processes):
    store, rows = taught(tmp_path, linear(), (4,))
    with pytest.raises(InvalidInputError, match=r"distilling needs torch, .*name an environment that has it"):
        distill(store, "teacher", rows, python=Path(sys.executable), training=Training(processes=processes))
