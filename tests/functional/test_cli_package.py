"""`sampan package` without an engine: the context, and the papers beside it."""

from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from sampan.cli.main import main


def sampan(zoo: Path, project: Path, *arguments: str) -> str:
    result = CliRunner().invoke(main, ["--store", str(zoo), "--project-dir", str(project), *arguments])
    assert result.exit_code == 0, result.stderr
    return result.stdout.strip()


def test_papers_of_an_earlier_package_do_not_stay(zoo: Path, tmp_path: Path) -> None:
    sampan(zoo, tmp_path, "new", "line", "--model", "linear")
    package = ("package", "line", "--no-docker", "--no-measure")
    context = Path(sampan(zoo, tmp_path, *package))
    assert (context / "Dockerfile").is_file()
    stale = [context.parent / name for name in ("model.sig", "template.json", "template-http.json")]
    for paper in stale:
        paper.write_text("of another model")
    sampan(zoo, tmp_path, *package)
    assert [paper for paper in stale if paper.exists()] == []
    assert {"bom.cdx.json", "package.json", "waterfall.json"} <= {path.name for path in context.parent.iterdir()}


def test_a_heavy_functions_image_comes_first_and_its_endpoint_is_said(zoo: Path, tmp_path: Path) -> None:
    sampan(zoo, tmp_path, "new", "line", "--model", "linear")
    toml = tmp_path / "functions/line/function.toml"
    toml.write_text('model = "linear"\nplacement = "sagemaker-async"\n[endpoint]\ninstance = "ml.c7i.large"\n')
    command = ["--store", str(zoo), "--project-dir", str(tmp_path), "package", "line", "--no-docker"]
    runner = CliRunner(env={"SAMPAN_ENDPOINT_BASE_IMAGE": "python:3.12"})
    said = runner.invoke(main, command)
    folder = tmp_path / "build/functions/line"
    assert said.stdout.splitlines() == [str(folder / "context")]
    assert f"endpoint: {folder / 'endpoint'}" in said.stderr
    (listed,) = msgspec.json.decode(runner.invoke(main, [*command, "-o", "json"]).stdout)
    assert listed["reference"] == str(folder / "context")
    assert listed["endpoint"]["reference"] == str(folder / "endpoint")
    assert listed["endpoint"]["arguments"] == {"BASE_IMAGE": "python:3.12"}


@pytest.mark.parametrize(
    ("placement", "endpoint", "reason"),
    [
        ("sagemaker", 'instance = "ml.c7i.large"', "its endpoint runs as an image alone"),
        ("sagemaker", 'instance = "ml.g5.xlarge"', "its endpoint runs on ml.g5.xlarge"),
        ("sagemaker-async", 'instance = "ml.c7i.large"', "its endpoint answers into S3"),
    ],
)
def test_what_this_machine_cannot_tell_of_a_heavy_function_is_not_measured(
    zoo: Path, tmp_path: Path, placement: str, endpoint: str, reason: str
) -> None:
    sampan(zoo, tmp_path, "new", "line", "--model", "linear")
    toml = tmp_path / "functions/line/function.toml"
    toml.write_text(f'model = "linear"\nplacement = "{placement}"\n[endpoint]\n{endpoint}\n')
    command = ["--store", str(zoo), "--project-dir", str(tmp_path), "package", "line", "--no-docker", "-o", "json"]
    said = CliRunner().invoke(main, command)
    assert f"line was not run: {reason}; times and memory stay unknown" in said.stderr
    assert msgspec.json.decode(said.stdout)[0]["waterfall"]["measured"] is None
