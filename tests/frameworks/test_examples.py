"""The worked examples of docs/examples, each run by its one command, from training to an answered request."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from sampan.store import open_store

ROOT = Path(__file__).parents[2]
FRAMEWORKS = ROOT / "build" / "frameworks"
WHEELS = ROOT / "build" / "examples" / "wheels"
# what the served answers to all test rows must reach
EXAMPLES = {
    "keras-binary": ("tensorflow", "scikit_learn", r"([\d.]+)% of all are right", lambda share: share > 90),
    "keras-digits": ("tensorflow", "scikit_learn", r"([\d.]+)% of all are right", lambda share: share > 85),
    "torch-regressor": ("torch", "statsmodels", r"over all ([\d.]+) ppm off", lambda ppm: ppm < 1),
}

pytestmark = [pytest.mark.framework, pytest.mark.slow, pytest.mark.timeout(600)]


def interpreter(framework: str, wheel: str) -> Path:
    python = FRAMEWORKS / framework / "bin" / "python"
    if os.environ.get("REQUIRE_FRAMEWORKS") != "1":
        if not python.exists():
            pytest.skip(f"build/frameworks/{framework} is not there; scripts/frameworks {framework} makes it")
        if not list(WHEELS.glob(f"{wheel}-*.whl")):
            pytest.skip(f"{WHEELS} has no wheel of {wheel}; the example's run fetches it")
    return python


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_whole_way_from_one_command(name, tmp_path):
    framework, wheel, pattern, good = EXAMPLES[name]
    python = interpreter(framework, wheel)
    command = [ROOT / "docs" / "examples" / name / "run", "--python", python, "--wheels", WHEELS, "--out", tmp_path]
    done = subprocess.run(
        command, env=os.environ | {"PYTHON": sys.executable}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = re.search(pattern, done.stdout)
    assert found, done.stdout
    assert good(float(found[1])), done.stdout
    assert re.search(r"^ +sgd: .*\n +adam: .*\nkept: ", done.stderr, re.MULTILINE), done.stderr
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    live = open_store(tmp_path / "store").find(f"{name}@live")
    source = open_store(tmp_path / "store").find(f"{name}:1")
    assert live.manifest.parent == source.ref
    assert live.manifest.size < 0.5 * source.manifest.size
    assert all(gate.passed for gate in live.manifest.gates)


@pytest.mark.parametrize("name", EXAMPLES)
def test_its_picture_is_kept_beside_it(name):
    picture = (ROOT / "docs" / "examples" / name / "curves.png").read_bytes()
    assert picture.startswith(b"\x89PNG")
    assert len(picture) < 100_000
