"""What container tests stand on: an engine, a base image, a project with the two real functions of this repository."""

import shutil
from pathlib import Path

import pytest

from projects import CONTAINERS, Project, missing
from sampan.packaging.docker import Engine, EngineError

ROOT = Path(__file__).parents[2]
# one cheap recipe a model, with a gate that it holds: what these tests need is a small version, not the best one
RECIPES = {"magika": ("dynamic-int8", "top1_agreement>=0.97"), "minilm": ("dynamic-int8", "cosine>=0.98")}


@pytest.fixture(scope="session")
def engine() -> Engine:
    engine = Engine()
    try:
        engine.check()
    except EngineError as error:
        missing(f"{error}; see scripts/containers")
    return engine


@pytest.fixture(scope="session")
def base_image(engine: Engine) -> str:
    """The base that `scripts/containers` found or made."""
    name = CONTAINERS / "base"
    if not name.exists() or engine.inspect(name.read_text().strip()) is None:
        missing("there is no base image; run scripts/containers")
    return name.read_text().strip()


@pytest.fixture(scope="session")
def sam() -> Path:
    program = CONTAINERS / "sam" / "bin" / "sam"
    if not program.exists():
        missing("there is no sam; run scripts/containers")
    return program


@pytest.fixture(scope="session")
def project(base_image: str, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The real functions of the repository; version 1 of each model is the source, version 2 (live) the small one."""
    project = Project(tmp_path_factory.mktemp("project"), base_image)
    for name, (recipe, gate) in RECIPES.items():
        shutil.copytree(ROOT / "functions" / name, project.folder / "functions" / name)
        project.add_real(name)
        project.sampan("compress", name, "--recipe", recipe, "--gate", gate, "--fast")
        project.sampan("promote", f"{name}:2")
    return project
