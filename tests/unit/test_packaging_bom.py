"""The bill of materials: valid by CycloneDX's own schema, the same for the same input, and complete."""

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

import models
from sampan.contract.function import FunctionConfig
from sampan.contract.manifest import Conversion, DifferenceEntry, GateEntry, Manifest
from sampan.packaging.bom import bill_of_materials, libraries
from sampan.packaging.files import PackagingError
from sampan.packaging.project import Function
from sampan.store import LocalStore, Version
from sampan.store.add import add_model

DIGEST = f"sha256:{'ab' * 32}"
ONE, TWO, THREE = "1" * 64, "2" * 64, "3" * 64
LOCK = f"""\
# written by a tool
numpy==2.4.6 ; python_full_version < '3.12' \\
    --hash=sha256:{ONE}
numpy==2.5.5 ; python_full_version >= '3.12' \\
    --hash=sha256:{TWO} \\
    --hash=sha256:{THREE}
typing_extensions==4.16.0 --hash=sha256:{ONE}
colorama==0.4.6 ; sys_platform == 'win32' --hash=sha256:{ONE}
cffi==2.1.1 ; platform_machine == 'aarch64' --hash=sha256:{ONE}
"""
FUNCTION = Function("echo", Path(), FunctionConfig(model="linear:1", description="rows in, rows out"))
GATE = GateEntry(gate="cosine[y]>=0.99", value=0.995, standard_error=0.001, samples=64, passed=True, certified=False)


@pytest.fixture
def version(tmp_path: Path) -> Version:
    path = models.save(models.linear(), tmp_path / "linear.onnx")
    return add_model(LocalStore(tmp_path / "store"), path, name="linear", licence="MIT", task="regression").version


def bill(manifest: Manifest, lock: str = LOCK, **more: Any) -> dict[str, Any]:
    """The document, held against the schema."""
    text = bill_of_materials(FUNCTION, manifest, lock, **{"digest": DIGEST, **more}).decode()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    return json.loads(text)


def component(document: dict[str, Any], kind: str) -> dict[str, Any]:
    [found] = [each for each in document["components"] if each["type"] == kind]
    return found


def compressed(manifest: Manifest) -> Manifest:
    recipe = {"name": "dynamic-int8", "passes": [{"name": "strip"}]}
    return msgspec.structs.replace(
        manifest, version=2, parent="linear:1", recipe=recipe, gates=[GATE], safe="any x86-64", digest="sha256:cd"
    )


def test_the_model_has_its_hash_licence_files_and_card(version: Version):
    document = bill(version.manifest)
    model = component(document, "machine-learning-model")
    digest = hashlib.sha256(version.model_path.read_bytes()).hexdigest()
    assert (model["name"], model["version"]) == ("linear", "1")
    assert model["hashes"] == [{"alg": "SHA-256", "content": digest}]
    assert model["licenses"] == [{"license": {"id": "MIT"}}]
    assert [(file["name"], file["hashes"][0]["content"]) for file in model["components"]] == [("model.onnx", digest)]
    assert {"name": "sampan:digest", "value": version.manifest.digest} in model["properties"]
    parameters = model["modelCard"]["modelParameters"]
    assert parameters["task"] == "regression"
    assert parameters["inputs"] == [{"format": "x: FP32 [-1, 4]"}]
    assert parameters["outputs"] == [{"format": "y: FP32 [-1, 3]"}]
    assert "pedigree" not in model


def test_a_compressed_model_names_its_parent_recipe_gates_and_limits(version: Version):
    model = component(bill(compressed(version.manifest), parent=version.manifest), "machine-learning-model")
    [ancestor] = model["pedigree"]["ancestors"]
    assert (ancestor["name"], ancestor["version"]) == ("linear", "1")
    assert ancestor["properties"] == [{"name": "sampan:digest", "value": version.manifest.digest}]
    assert json.loads(model["pedigree"]["notes"])["name"] == "dynamic-int8"
    [metric] = model["modelCard"]["quantitativeAnalysis"]["performanceMetrics"]
    assert (metric["type"], metric["value"]) == ("cosine[y]", "0.995")
    assert metric["slice"] == "64 samples against linear:1; gate cosine[y]>=0.99 held"
    interval = metric["confidenceInterval"]
    assert float(interval["lowerBound"]) == pytest.approx(0.995 - 1.96 * 0.001)
    assert float(interval["upperBound"]) == pytest.approx(0.995 + 1.96 * 0.001)
    considerations = model["modelCard"]["considerations"]
    limits = ["gates hold on: any x86-64", "too few samples to prove cosine[y]>=0.99"]
    assert considerations["technicalLimitations"] == limits
    assert considerations["performanceTradeoffs"] == ["compressed by dynamic-int8"]


def test_a_converted_model_names_its_source_and_how_far_it_is_from_it(version: Version):
    conversion = Conversion(
        source="model.keras",
        format="keras",
        exporter="tf2onnx",
        versions={},
        samples=8,
        rtol=0,
        atol=0,
        differences=[DifferenceEntry(output="y", max_abs_error=0.1, relative_error=0.01)],
    )
    converted = msgspec.structs.replace(version.manifest, conversion=conversion)
    model = component(bill(converted), "machine-learning-model")
    assert [ancestor["name"] for ancestor in model["pedigree"]["ancestors"]] == ["model.keras"]
    [metric] = model["modelCard"]["quantitativeAnalysis"]["performanceMetrics"]
    assert (metric["type"], metric["value"]) == ("relative_error[y]", "0.01")
    assert metric["slice"] == "8 samples against model.keras"


def test_libraries_are_those_of_the_target_with_their_hashes():
    for python, architecture, names in (
        ("3.11", "x86_64", ["numpy 2.4.6", "typing-extensions 4.16.0"]),
        ("3.12", "x86_64", ["numpy 2.5.5", "typing-extensions 4.16.0"]),
        ("3.12", "arm64", ["numpy 2.5.5", "typing-extensions 4.16.0", "cffi 2.1.1"]),
    ):
        found = libraries(LOCK, python, architecture)
        assert [f"{library.name} {library.version}" for library in found] == names
    assert libraries(LOCK, "3.12", "x86_64")[0].hashes == (TWO, THREE)


def test_everything_hangs_together(version: Version):
    document = bill(version.manifest)
    numpy = next(each for each in document["components"] if each["name"] == "numpy")
    assert numpy["purl"] == numpy["bom-ref"] == "pkg:pypi/numpy@2.5.5"
    [files] = numpy["externalReferences"]
    assert [entry["content"] for entry in files["hashes"]] == [TWO, THREE]
    needs = {each["ref"]: set(each.get("dependsOn", ())) for each in document["dependencies"]}
    assert needs["function:echo"] == {"sampan", "model:linear:1"}
    assert needs["sampan"] == {"pkg:pypi/numpy@2.5.5", "pkg:pypi/typing-extensions@4.16.0"}
    assert document["metadata"]["component"]["version"] == DIGEST
    assert document["metadata"]["component"]["description"] == "rows in, rows out"


def test_the_python_of_the_base_image_goes_before_that_of_the_function(version: Version):
    names = {each["purl"] for each in bill(version.manifest, python="3.11")["components"] if "purl" in each}
    assert "pkg:pypi/numpy@2.4.6" in names


def test_the_same_input_gives_the_same_bytes_and_another_digest_another_number(version: Version):
    first, again = (bill_of_materials(FUNCTION, version.manifest, LOCK, digest=DIGEST) for _ in range(2))
    assert first == again
    other = bill(version.manifest, digest=f"sha256:{'cd' * 32}")
    assert other["serialNumber"] != json.loads(first)["serialNumber"]
    assert "timestamp" not in other["metadata"]


def test_real_locks_are_read():
    root = Path(__file__).parents[2] / "layers" / "handler"
    found = libraries((root / "requirements.txt").read_text(), "3.12", "x86_64")
    names = [library.name for library in found]
    assert {"numpy", "onnxruntime", "orjson", "fastapi"} <= set(names)
    assert len(names) == len(set(names))
    assert all(library.hashes for library in found)


def test_a_licence_without_an_spdx_number_is_kept_by_name(version: Version):
    manifest = msgspec.structs.replace(version.manifest, licence="ask Alice")
    assert component(bill(manifest), "machine-learning-model")["licenses"] == [{"license": {"name": "ask Alice"}}]


def test_without_the_package_the_extra_is_named(version: Version, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "cyclonedx.output.json", None)
    with pytest.raises(PackagingError, match=r"pip install 'sampan\[package\]'"):
        bill_of_materials(FUNCTION, version.manifest, LOCK, digest=DIGEST)
