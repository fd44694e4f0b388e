"""Projects that are synthesised once."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from synthesis import Templates, package_image, package_zip, synthesise, write_project

PLAIN = 'model = "plain"\ndescription = "Numbers to numbers"\n'
ARCHIVE = 'model = "archive"\nplacement = "lambda-zip"\nmemory = 512\npython = "3.13"\n'


@pytest.fixture(scope="session")
def packaged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with an image function and a zip function, both packaged, and no stage that says anything."""
    folder = write_project(tmp_path_factory.mktemp("packaged"), {"plain": PLAIN, "archive": ARCHIVE})
    package_image(folder, "plain")
    package_zip(folder, "archive")
    return folder


@pytest.fixture(scope="session")
def templates(packaged: Path, tmp_path_factory: pytest.TempPathFactory) -> Templates:
    """Of `packaged`."""
    return synthesise(packaged, tmp_path_factory.mktemp("out"))


@pytest.fixture(scope="session")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Templates]:
    """Templates of a stage with these options, its functions not packaged; the same ones for the same options."""
    made: dict[str, Templates] = {}

    def build(functions: dict[str, str] | None = None, **options: Any) -> Templates:
        key = repr((functions, options))
        if key not in made:
            folder = tmp_path_factory.mktemp("project")
            write_project(folder, functions or {"plain": PLAIN}, {"dev": options})
            made[key] = synthesise(folder, folder / "out")
        return made[key]

    return build
