"""`sampan tune` on a tiny function's real image: figures by CPU share, what does not fit, Ctrl-C, nothing left."""

import json
import signal
import sys
import time

import numpy as np
import pytest

import models
from projects import Project
from sampan.emulation.container import LABEL
from sampan.packaging.docker import Engine

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.timeout(300)]

HELD = """HELD = b"x" * 160_000_000
def preprocess(items):
    return {}
"""


@pytest.fixture(scope="module")
def project(engine: Engine, base_image: str, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A function whose process holds more than 128 MB."""
    project = Project(tmp_path_factory.mktemp("tuned"), base_image)
    model = models.save(models.classifier(), project.folder / "model.onnx")
    samples = project.folder / "samples.npz"
    np.savez(samples, x=np.random.default_rng(0).normal(size=(4, 1, 64)).astype(np.float32))
    project.sampan("add", model, "--name", "tuned", "--samples", samples)
    folder = project.folder / "functions" / "tuned"
    folder.mkdir(parents=True)
    (folder / "pipeline.py").write_text(HELD)
    (folder / "function.toml").write_text('model = "tuned"\npipeline = "pipeline.py" # holds\n')
    return project


def left(engine: Engine) -> str:
    return engine.output("ps", "--all", "--quiet", "--filter", f"label={LABEL}=tuned")


def test_sizes_in_the_real_image(project: Project, engine: Engine) -> None:
    picture = project.folder / "tuned.png"
    options = ("--sizes", "128,512,1769", "--rounds", "1", "--plot", picture, "--write", "-o", "json")
    found = json.loads(project.sampan("tune", "tuned", *options))
    none, small, large = found["sizes"]
    assert (found["level"], none["state"]) == ("docker", "out of memory")
    assert small["state"] == large["state"] == "measured"
    assert small["cold_ms"] > 1.2 * large["cold_ms"]
    assert 160 < small["peak_mb"] < 512
    assert found["choice"] in (512, 1769)
    written = (project.folder / "functions" / "tuned" / "function.toml").read_text()
    assert written == f'model = "tuned"\nmemory = {found["choice"]}\npipeline = "pipeline.py" # holds\n'
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert left(engine) == ""


def test_ctrl_c_leaves_nothing(project: Project, engine: Engine) -> None:
    arguments = ("--project-dir", str(project.folder), "tune", "tuned", "--sizes", "512", "--rounds", "50")
    with project.process([sys.executable, "-m", "sampan.cli.main", *arguments]) as process:
        end = time.monotonic() + 60
        while not left(engine) and time.monotonic() < end:
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        words = process.stderr.read()
        assert process.wait(60) == 1
    assert "stopped, with" in words
    assert left(engine) == ""
