"""Gates as a person gives them: of a function.toml, of a file, of their own code; certified or not; the stamp."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from models import classifier, save
from sampan.store import open_store
from sampan.store.derive import derive

FAST = ("--fast", "--recipe", "int8-weights")


def sampan(project: Path, *words: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sampan.cli.main", "--project-dir", str(project), *map(str, words)]
    clean = {key: value for key, value in os.environ.items() if not key.startswith("SAMPAN_")}
    return subprocess.run(command, capture_output=True, text=True, timeout=110, check=False, env=clean, cwd=cwd)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with one model, and samples beside it."""
    model = save(classifier(), tmp_path / "classifier.onnx")
    x = np.random.default_rng(1).normal(size=(24, 1, 64)).astype(np.float32)
    np.savez(tmp_path / "samples.npz", x=x)
    added = sampan(tmp_path, "add", model, "--samples", tmp_path / "samples.npz")
    assert added.returncode == 0, added.stderr
    return tmp_path


def function(project: Path, text: str) -> Path:
    file = project / "functions" / "answer" / "function.toml"
    file.parent.mkdir(parents=True)
    file.write_text(text)
    return file


def test_gates_of_the_function_hold(project):
    function(project, 'model = "classifier@live"\nmemory = 512\ngates = ["max_abs_error<=0.2", "cosine>=0.9"]\n')
    done = sampan(project, "compress", "classifier", *FAST)
    assert (done.returncode, done.stdout) == (0, "classifier:2\n"), done.stderr
    assert "function.toml: max_abs_error<=0.2, cosine>=0.9" in done.stderr
    shown = json.loads(sampan(project, "show", "classifier:2", "-o", "json").stdout)
    assert [(gate["gate"], gate["certified"]) for gate in shown["gates"]] == [
        ("max_abs_error<=0.2", True),
        ("cosine>=0.9", True),
    ]


def test_a_gate_of_the_function_that_is_missed_registers_nothing(project):
    function(project, 'model = "classifier"\ngates = ["max_abs_error<=0"]\n')
    done = sampan(project, "compress", "classifier", *FAST)
    assert (done.returncode, done.stdout) == (1, "")
    assert "max_abs_error<=0 is" in done.stderr


def test_the_command_line_goes_before_the_function(project):
    function(project, 'model = "classifier"\ngates = ["max_abs_error<=0"]\n')
    done = sampan(project, "compress", "classifier", *FAST, "--gate", "cosine>=0.9")
    assert (done.returncode, done.stdout) == (0, "classifier:2\n"), done.stderr


def test_a_file_of_gates(project):
    (project / "mine.toml").write_text('# ours\ngates = ["cosine>=0.9", "box_iou"]\n')
    done = sampan(project, "compress", "classifier", *FAST, "--gates", project / "mine.toml")
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith(f"Error: {project / 'mine.toml'}:2: gate 'box_iou' is not")
    both = sampan(project, "compress", "classifier", "--gates", project / "mine.toml", "--gate", "cosine>=0.9")
    assert both.returncode == 2


def test_a_function_of_the_project_is_a_gate(project, tmp_path):
    """From another folder, so that Python itself does not find the module."""
    code = "def drop(reference, candidate):\n    r, c = reference['probabilities'], candidate['probabilities']\n"
    (project / "judge.py").write_text(code + "    return float(abs(r - c).max())\n")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    gate = ("--gate", "judge:drop<=0.2")
    done = sampan(project, "compress", "classifier", *FAST, *gate, cwd=elsewhere)
    assert (done.returncode, done.stdout) == (0, "classifier:2\n"), done.stderr
    assert "judge:drop<=0.2" in sampan(project, "show", "classifier:2").stdout
    assert sampan(project, "verify", "classifier:2").returncode == 0
    (project / "judge.py").write_text(code + "    return r / 0 + missing\n")
    done = sampan(project, "compress", "classifier", *FAST, *gate, cwd=elsewhere)
    assert (done.returncode, done.stdout) == (1, "")
    assert "judge.py:3: " in done.stderr.strip().splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_too_few_samples_warn_and_certify_refuses(project):
    gate = ("--gate", "top1_agreement>=0.99")
    refused = sampan(project, "compress", "classifier", *FAST, *gate, "--certify")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "24 samples only, and 100 are needed to certify it" in refused.stderr
    assert len(sampan(project, "history", "classifier").stdout.strip().splitlines()) == 3
    certified = sampan(project, "compress", "classifier", *FAST, "--gate", "top1_agreement>=0.9", "--certify")
    assert (certified.returncode, certified.stdout) == (0, "classifier:2\n"), certified.stderr
    warned = sampan(project, "compress", "classifier:1", *FAST, "--recipe", "fp16-weights", *gate)
    assert warned.returncode == 0, warned.stderr
    assert "Warning: top1_agreement>=0.99 was measured on 24 samples only, and 100 are needed" in warned.stderr


def test_generated_samples_certify_nothing(tmp_path):
    assert sampan(tmp_path, "add", save(classifier(), tmp_path / "c.onnx")).returncode == 0
    done = sampan(tmp_path, "compress", "c", *FAST, "--certify")
    assert done.returncode == 1
    assert "generated samples certify nothing" in done.stderr


def test_the_stamp_is_seen(project):
    store = open_store(project / "model_store" / "models")
    parent = store.find("classifier:1")
    other = save(classifier(seed=1), project / "other.onnx")
    derive(store, parent, other, parent.golden(), recipe={"name": "int8"}, safe="VNNI only")
    assert "VNNI only" in sampan(project, "show", "classifier:2").stdout
    assert json.loads(sampan(project, "show", "classifier:1", "-o", "json").stdout)["safe"] is None
    events = json.loads(sampan(project, "history", "classifier", "-o", "json").stdout)
    assert [event["safe"] for event in events if event["kind"] == "version"] == [None, "VNNI only"]
    assert "safe on: VNNI only" in sampan(project, "history", "classifier").stdout
    verified = sampan(project, "verify")
    assert "classifier:2 is safe on: VNNI only; Lambda's CPUs are mixed" in verified.stderr
    assert "golden samples agree; output 'probabilities' differs" in verified.stdout
    assert "this CPU is" in verified.stdout
