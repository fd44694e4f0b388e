"""From a teacher to a registered student. The trainer is a fake: a script in the place of torch's interpreter, that
hands out a student which lies ready, or fails as a real one can."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from models import classifier, linear, save
from sampan.contract.errors import InvalidInputError, ModelError
from sampan.distill.curve import check_drawable, draw
from sampan.distill.engine import default_gate, distill
from sampan.distill.report import StudentMissesError
from sampan.distill.training import Training
from sampan.serving.session import OnnxSession
from sampan.store import open_store
from sampan.store.add import add_model

TRAINER = """#!{python}
import json, shutil, sys
from pathlib import Path
import numpy as np

folder = Path(sys.argv[2]).parent
def tell(**event):
    print(json.dumps(event), flush=True)
{body}
"""
START = 'tell(event="start", student="mlp:4", parameters=99, torch="2")'
EPOCHS = """
print("a word of the student's own")
for epoch in (1, 2):
    tell(event="epoch", epoch=epoch, loss=1 / epoch, validation_loss=1 / epoch, agreement=0.5, lr=0.1)
"""
HAND_IN = """
shutil.copy({student!r}, folder / "student.onnx")
np.save(folder / "answer-0.npy", np.load({answers!r})[np.load(folder / "held_out.npy")])
tell(event="done", epochs=2, best_epoch=2, early=False)
"""
ROWS = 60


@pytest.fixture
def store(tmp_path):
    found = open_store(tmp_path / "store")
    (tmp_path / "labels.txt").write_text("a\nb\nc\n")
    add_model(found, save(linear(outputs=3), tmp_path / "teacher.onnx"), labels=tmp_path / "labels.txt")
    return found


@pytest.fixture
def data(tmp_path) -> Path:
    np.savez(tmp_path / "rows.npz", x=np.random.default_rng(1).normal(size=(ROWS, 4)).astype(np.float32))
    return tmp_path / "rows.npz"


def trainer(tmp_path: Path, body: str) -> Path:
    path = tmp_path / "trainer"
    path.write_text(TRAINER.format(python=sys.executable, body=body))
    path.chmod(0o755)
    return path


def handing_in(tmp_path: Path, data: Path, model, error: float = 0.0) -> Path:
    """A trainer whose student is `model`, and whose torch answered `error` more than that."""
    student = save(model, tmp_path / "student.onnx")
    with np.load(data) as archive:
        answers = next(iter(OnnxSession(student).run(dict(archive)).values()))
    np.save(tmp_path / "answers.npy", answers + np.float32(error))
    ready = HAND_IN.format(student=str(student), answers=str(tmp_path / "answers.npy"))
    return trainer(tmp_path, f"{START}{EPOCHS}{ready}")


def test_a_student_that_holds_becomes_a_version_of_its_teacher(store, data, tmp_path):
    watched: list[str] = []
    python = handing_in(tmp_path, data, linear(outputs=3))
    outcome = distill(
        store,
        "teacher",
        data,
        python=python,
        training=Training(l2=0.25, held_out=0.2),
        gate=["top1_agreement>=0.9", "max_abs_error<=0.01"],
        watch=lambda words, done, total: watched.append(words),
    )
    manifest = store.find("teacher:2").manifest
    assert (outcome.version.ref, manifest.parent, manifest.labels) == ("teacher:2", "teacher:1", "labels.txt")
    assert (manifest.recipe["name"], manifest.recipe["loss"]) == ("distill", {"y": "kl"})
    assert (manifest.recipe["l2"], manifest.recipe["student"], manifest.recipe["final_loss"]) == (0.25, "mlp:4", 0.5)
    assert manifest.recipe["rows"] == {"train": 36, "validation": 12, "held_out": 12, "doubles": 0}
    assert [(entry.gate, entry.passed, entry.samples) for entry in manifest.gates] == [
        ("top1_agreement>=0.9", True, 12),
        ("max_abs_error<=0.01", True, 12),
    ]
    golden = outcome.version.golden()
    assert (manifest.golden.source, len(golden)) == ("given", 12)
    np.testing.assert_allclose(golden[0].outputs["y"], golden[0].reference["y"])
    assert json.loads((outcome.version.folder / "report.json").read_text())["training"]["history"][1]["loss"] == 0.5
    assert any("epoch 2: loss 0.5" in words for words in watched)
    assert outcome.report.warnings == ["the student is not smaller than its teacher; name one with --student"]


def test_a_student_that_misses_its_gate_is_not_registered(store, data, tmp_path):
    python = handing_in(tmp_path, data, linear(outputs=3, seed=5))
    with pytest.raises(StudentMissesError, match=r"misses cosine>=0.99 \(.*nothing is registered") as caught:
        distill(store, "teacher", data, python=python, gate=["cosine>=0.99"])
    assert store.versions("teacher") == [1]
    assert caught.value.report.agreement["cosine"] < 0.99
    assert caught.value.report.golden["cosine"] < 0.99


def test_an_export_that_answers_otherwise_than_torch_is_refused(store, data, tmp_path):
    python = handing_in(tmp_path, data, linear(outputs=3), error=0.5)
    with pytest.raises(ModelError, match=r"answers otherwise than in torch: output 'y' differs by up to 0.5"):
        distill(store, "teacher", data, python=python)
    assert store.versions("teacher") == [1]


def test_a_student_of_another_signature_is_refused(store, data, tmp_path):
    python = handing_in(tmp_path, data, linear(outputs=2))
    with pytest.raises(ModelError, match=r"exported as x FP32\[-1, 4\] -> y FP32\[-1, 2\], its teacher is"):
        distill(store, "teacher", data, python=python)


@pytest.mark.parametrize(
    ("body", "error", "words"),
    [
        ('tell(event="missing", packages=["torch"]); sys.exit(1)', InvalidInputError, "needs torch, which .*trainer"),
        ('tell(event="error", error="the loss is NaN"); sys.exit(1)', ModelError, "training failed: the loss is NaN"),
        (f'{START}\nsys.exit("no room left")', ModelError, "ended with exit code 1: no room left"),
        (START, ModelError, "ended with exit code 0"),
    ],
)
def test_a_training_that_fails_says_why(store, data, tmp_path, body, error, words):
    with pytest.raises(error, match=words):
        distill(store, "teacher", data, python=trainer(tmp_path, body))
    assert store.versions("teacher") == [1]


def test_an_interpreter_that_is_not_there_is_named(store, data, tmp_path):
    with pytest.raises(InvalidInputError, match="nowhere cannot be started: No such file"):
        distill(store, "teacher", data, python=tmp_path / "nowhere")


def test_more_processes_than_rows_to_validate_on_are_refused_before_the_training(store, data, tmp_path):
    with pytest.raises(InvalidInputError, match="6 rows to validate on are too few for 7 processes"):
        distill(store, "teacher", data, python=tmp_path / "nowhere", training=Training(processes=7))


def test_the_default_gate_follows_the_model(store, tmp_path):
    add_model(store, save(classifier(), tmp_path / "vectors.onnx"))
    add_model(store, save(linear(outputs=1), tmp_path / "value.onnx"))
    gates = {name: default_gate(store.find(name).manifest) for name in ("teacher", "vectors", "value")}
    assert gates == {
        "teacher": "top1_agreement>=0.95",
        "vectors": "cosine>=0.95",
        "value": "relative_error<=0.1",
    }


def test_the_learning_curve_is_a_picture(store, data, tmp_path):
    pytest.importorskip("matplotlib")
    check_drawable(tmp_path / "curve.png")
    report = distill(store, "teacher", data, python=handing_in(tmp_path, data, linear(outputs=3))).report
    draw(report, tmp_path / "curve.png")
    picture = (tmp_path / "curve.png").read_bytes()
    assert picture.startswith(b"\x89PNG")
    assert int.from_bytes(picture[16:20]) == 1200
    with pytest.raises(InvalidInputError, match=r"must end in \.png"):
        check_drawable(tmp_path / "curve.svg")


def sampan(store, *words):
    command = [sys.executable, "-m", "sampan.cli.main", "--store", store.location, "distill", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=110, check=False)


def test_stdout_is_the_reference_and_stderr_the_agreement(store, data, tmp_path):
    done = sampan(store, "teacher", "--data", data, "--python", handing_in(tmp_path, data, linear(outputs=3)))
    assert (done.returncode, done.stdout) == (0, "teacher:2\n")
    assert "no --gate given: top1_agreement>=0.95" in done.stderr
    assert "student mlp:4, 99 parameters" in done.stderr
    assert "trained on rows: 48 train, 6 validation, 6 held out, 0 doubles; 2 epochs" in done.stderr
    assert "generated golden samples" in done.stderr
    assert "top1_agreement>=0.95 holds: 1 on 6 held-out rows" in done.stderr


def test_json_is_the_report_also_of_a_student_that_misses(store, data, tmp_path):
    words = ("teacher", "--data", data, "--gate", "cosine>=0.99", "-o", "json")
    done = sampan(store, *words, "--python", handing_in(tmp_path, data, linear(outputs=3, seed=5)))
    assert done.returncode == 1
    report = json.loads(done.stdout)
    assert (report["ref"], report["gates"][0]["passed"], report["training"]["student"]) == (None, False, "mlp:4")
    assert done.stderr.strip().splitlines()[-1].startswith("Error: the student misses cosine>=0.99")


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("teacher",), 2, "Missing option '--data'"),
        (("teacher", "--data", "x.npz", "--loss", "hinge"), 2, "'hinge' is not one of"),
        (("nothing", "--data", "x.npz"), 1, "nothing"),
        (("teacher", "--data", "missing.npz"), 1, "no such samples: missing.npz"),
        (("teacher", "--data", "x.npz", "--epochs", "0"), 1, "--epochs must be at least 1"),
        (("teacher", "--data", "x.npz", "--gate", "beauty>=1"), 1, "names no known metric"),
        (("teacher", "--data", "x.npz", "--curve", "missing/c.png"), 1, "there is no folder missing"),
    ],
)
def test_a_mistake_is_one_clear_line(store, words, code, said):
    done = sampan(store, *words)
    assert (done.returncode, done.stdout) == (code, "")
    assert said in done.stderr.strip().splitlines()[-1]
