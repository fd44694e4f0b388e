"""`sampan init`: a folder in which every other verb works."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import models
from sampan.cli.main import main
from sampan.packaging.initial import project_name
from sampan.stacks.config import read_project


def sampan(*arguments: object, code: int = 0) -> Result:
    result = CliRunner().invoke(main, list(map(str, arguments)))
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    return result


def test_what_is_written_is_a_project_that_deploys(tmp_path: Path):
    folder = tmp_path / "My Fish 2"
    assert sampan("init", folder).stdout.strip() == str(folder)
    place = ["--project-dir", folder]
    model = models.save(models.linear(), tmp_path / "linear.onnx")
    sampan(*place, "add", model, "--name", "linear")
    sampan(*place, "new", "predict", "--model", "linear")
    for stage in ("dev", "prod"):
        project = read_project(folder, stage)
        assert project.names.function("predict") == f"my-fish-2-{stage}-predict"
        assert [function.model for function in project.functions] == ["linear"]


def test_the_files_are_listed(tmp_path: Path):
    listed = json.loads(sampan("init", tmp_path / "p", "-o", "json").stdout)
    assert {Path(file).name for file in listed["files"]} == {"cdk.json", "README.md", ".gitignore", ".gitkeep"}


def test_an_empty_folder_is_taken_and_a_full_one_left_alone(tmp_path: Path):
    sampan("init", tmp_path / "p")
    (tmp_path / "empty").mkdir()
    sampan("init", tmp_path / "empty")
    before = {file: file.read_bytes() for file in (tmp_path / "p").rglob("*") if file.is_file()}
    assert "not empty" in sampan("init", tmp_path / "p", code=1).stderr
    assert {file: file.read_bytes() for file in (tmp_path / "p").rglob("*") if file.is_file()} == before


@pytest.mark.parametrize(
    ("folder", "name"),
    [("fish", "fish"), ("My Fish 2", "my-fish-2"), ("2024", "sampan"), ("a" * 40, "a" * 20), ("ü", "sampan")],
)
def test_names_of_projects(folder: str, name: str):
    assert project_name(folder) == name
