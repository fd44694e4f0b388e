"""The SAM template: what it says of an image and of a zip, behind either API."""

import json
from pathlib import Path
from typing import Any

import pytest

from sampan.contract.function import FunctionConfig
from sampan.packaging.project import Function
from sampan.packaging.template import ImageArtefact, ZipArtefact, sam_template, write_template

IMAGE = ImageArtefact("sampan/echo:1")


def function(**more: Any) -> Function:
    return Function("echo", Path(), FunctionConfig(model="echo:2", **more))


def properties(template: dict[str, Any], name: str = "Function") -> dict[str, Any]:
    return template["Resources"][name]["Properties"]


def test_an_image_has_the_functions_size_and_no_handler():
    found = properties(sam_template(function(memory=512, timeout=7, architecture="arm64"), IMAGE))
    assert found["PackageType"] == "Image"
    assert found["ImageUri"] == "sampan/echo:1"
    assert (found["MemorySize"], found["Timeout"], found["Architectures"]) == (512, 7, ["arm64"])
    assert found["EphemeralStorage"] == {"Size": 512}
    assert found.keys() & {"Handler", "Runtime", "CodeUri", "Metadata", "SnapStart", "Tracing"} == set()


def test_rest_takes_binary_bodies_on_every_path():
    template = sam_template(function(), IMAGE, api="rest")
    assert template["Resources"]["Api"]["Type"] == "AWS::Serverless::Api"
    assert properties(template, "Api")["BinaryMediaTypes"] == ["*~1*"]
    events = properties(template)["Events"].values()
    assert {event["Type"] for event in events} == {"Api"}
    assert {event["Properties"]["Path"] for event in events} == {"/", "/{proxy+}"}
    assert {event["Properties"]["Method"] for event in events} == {"ANY"}


def test_http_gives_events_of_payload_2():
    template = sam_template(function(), IMAGE, api="http")
    assert template["Resources"]["Api"]["Type"] == "AWS::Serverless::HttpApi"
    events = [event["Properties"] for event in properties(template)["Events"].values()]
    assert {event["Path"] for event in events} == {"/", "/{proxy+}"}
    assert {event["PayloadFormatVersion"] for event in events} == {"2.0"}


def test_a_zip_has_a_layer_and_paths_that_move_with_the_template(tmp_path: Path):
    artefact = ZipArtefact(tmp_path / "out" / "code.zip", tmp_path / "layer")
    path = write_template(tmp_path / "out" / "sam" / "template.json", function(python="3.13"), artefact)
    template = json.loads(path.read_text())
    found = properties(template)
    assert (found["PackageType"], found["Runtime"]) == ("Zip", "python3.13")
    assert found["Handler"] == "sampan.serving.function.handler"
    assert found["CodeUri"] == "../code.zip"
    assert found["Layers"] == [{"Ref": "Layer"}]
    assert properties(template, "Layer")["ContentUri"] == "../../layer"
    assert properties(template, "Layer")["CompatibleRuntimes"] == ["python3.13"]
    assert "ImageUri" not in found


def test_variables_of_the_function_the_digest_and_the_caller():
    chosen = function(golden_check=2, environment={"LOG_LEVEL": "INFO"})
    template = sam_template(chosen, IMAGE, digest="sha256:ab", environment={"SAMPAN_THREADS": "1"})
    assert properties(template)["Environment"]["Variables"] == {
        "LOG_LEVEL": "INFO",
        "POWERTOOLS_SERVICE_NAME": "echo",
        "SAMPAN_GOLDEN_CHECK": "2",
        "SAMPAN_MANIFEST_DIGEST": "sha256:ab",
        "SAMPAN_THREADS": "1",
    }


@pytest.mark.parametrize("artefact", [IMAGE, ZipArtefact(Path("code"), Path("layer"))])
def test_snapstart_publishes_versions_and_trace_is_active(artefact: ImageArtefact | ZipArtefact):
    found = properties(sam_template(function(snapstart=True, trace=True), artefact))
    assert found["SnapStart"] == {"ApplyOn": "PublishedVersions"}
    assert found["AutoPublishAlias"] == "live"
    assert found["Tracing"] == "Active"


def test_the_same_arguments_write_the_same_bytes_and_leave_nothing_else(tmp_path: Path):
    first = write_template(tmp_path / "template.json", function(), IMAGE).read_bytes()
    assert write_template(tmp_path / "template.json", function(), IMAGE).read_bytes() == first
    assert [file.name for file in tmp_path.iterdir()] == ["template.json"]
