"""A heavy function in its two images: SageMaker's contract between them, and nothing left when it is over."""

from pathlib import Path

import pytest

import models
from sampan.emulation.artefacts import Artefacts
from sampan.emulation.compare import compare_levels
from sampan.emulation.container import LABEL
from sampan.emulation.heavy import stand_behind
from sampan.packaging.docker import Engine
from sampan.store.add import add_model
from sampan.store.local import LocalStore

pytestmark = [pytest.mark.docker, pytest.mark.timeout(600)]


@pytest.fixture
def heavy(engine: Engine, base_image: str, tmp_path: Path, request: pytest.FixtureRequest) -> Artefacts:
    """A function of the test's own name: containers of tests that run beside it are others."""
    name = request.node.name.replace("_", "-")
    store = LocalStore(tmp_path / "store")
    add_model(store, models.save(models.linear(), tmp_path / "linear.onnx"), name="linear")
    (tmp_path / "functions" / name).mkdir(parents=True)
    (tmp_path / "functions" / name / "function.toml").write_text(
        'model = "linear:1"\nplacement = "sagemaker"\npython = "3.11"\n[endpoint]\ninstance = "ml.c5.large"\n'
    )
    return Artefacts(tmp_path, store, name, base=base_image, endpoint_base=base_image, engine=engine)


def test_images_answer_as_the_model_in_this_process(heavy: Artefacts, engine: Engine):
    found = compare_levels(heavy, "docker")
    assert found.identical, found.difference
    assert [times.level for times in found.times] == ["in-process", "docker"]
    assert left(engine, heavy) == ""


def test_what_is_stopped_leaves_nothing(heavy: Artefacts, engine: Engine):
    behind = stand_behind(heavy, "docker")
    try:
        assert any('"message":"init"' in line for line in behind.written())
    finally:
        behind.stop()
    assert left(engine, heavy) == ""


def left(engine: Engine, heavy: Artefacts) -> str:
    names = (heavy.function.name, f"{heavy.function.name}-endpoint")
    return "".join(engine.output("ps", "--all", "--quiet", "--filter", f"label={LABEL}={name}") for name in names)
