"""A heavy function's two contexts: no weights before the endpoint, no own code behind it, one preparation, refusals."""

import base64
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec
import pytest

import models
from sampan.contract.errors import InvalidInputError, SampanError
from sampan.contract.function import Endpoint, FunctionConfig
from sampan.contract.manifest import Manifest
from sampan.packaging import endpoint as endpoint_module
from sampan.packaging import install
from sampan.packaging.build import Order, as_dict, package
from sampan.packaging.dockerfile import check_dockerfile
from sampan.packaging.endpoint import Contexts, write_contexts
from sampan.packaging.plain import tree_digest
from sampan.packaging.project import Function, read_function
from sampan.packaging.requirements import locked_version
from sampan.packaging.seal import make_key
from sampan.packaging.sizes import sizes_of
from sampan.serving.golden import read_golden
from sampan.serving.integrity import check_files
from sampan.store import open_store
from sampan.store.add import add_model
from sampan.store.protocol import Store

SHARED = "code/opt/python/sampan/"
CPU = Endpoint(instance="ml.c7i.large")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A classifier with labels, one of fewer weights, and one of another signature."""
    store = open_store(str(tmp_path / "store"))
    labels = tmp_path / "labels.txt"
    labels.write_text("".join(f"kind {number}\n" for number in range(10)))
    for name, model in (
        ("large", models.classifier()),
        ("small", models.classifier(hidden=32)),
        ("other", models.linear()),
    ):
        more: dict[str, Any] = {"labels": labels} if name != "other" else {}
        add_model(store, models.save(model, tmp_path / f"{name}.onnx"), name=name, **more)
    return store


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "project" / "functions" / "fish").mkdir(parents=True)
    return tmp_path / "project"


def function(project: Path, **options: Any) -> Function:
    options = {"model": "large", "placement": "sagemaker", "endpoint": CPU, **options}
    return Function("fish", project / "functions" / "fish", FunctionConfig(**options))


def written(project: Path, store: Store, **options: Any) -> Contexts:
    return write_contexts(project, function(project, **options), store, store.find("large"))


def paths(folder: Path) -> list[str]:
    found = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return sorted(path for path in found if not path.startswith(SHARED))


@pytest.mark.parametrize("placement", ["sagemaker", "sagemaker-async"])
def test_weights_lie_behind_and_the_functions_own_pipeline_before(placement: str, project: Path, store: Store):
    (project / "functions/fish/pipeline.py").write_text("VALUE = 1\n")
    made = written(project, store, placement=placement, pipeline="pipeline.py")
    front, endpoint = made.function, made.endpoint
    assert endpoint is not None
    assert paths(front.folder) == [
        *("Dockerfile", "code/var/task/pipeline.py", "install.py"),
        *("model/var/task/models/large/labels.txt", "model/var/task/models/large/manifest.json"),
        *("requirements.txt", "runtime-client.txt"),
    ]
    files = ("golden.npz", "labels.txt", "manifest.json", "model.onnx")
    assert paths(endpoint.folder) == [
        *("Dockerfile", "install.py", *(f"model/opt/models/large/{file}" for file in files), "requirements.txt")
    ]
    assert (front.folder.name, endpoint.folder.name, endpoint.title) == ("context", "endpoint", "fish-endpoint")
    assert list(front.manifest.files) == ["labels.txt"]
    assert front.manifest.interface == endpoint.manifest.interface
    for context in (front, endpoint):
        check_files(context.version, context.manifest)
        check_dockerfile(context.folder)
        assert tree_digest(context.folder) == context.digest
    assert (endpoint.folder / SHARED / "serving/repository.py").is_file()
    assert not any(path.is_dir() and path.name.startswith(".") for path in front.folder.parent.iterdir())


def test_the_same_input_gives_the_same_bytes_anywhere_and_the_model_is_prepared_once(
    project: Path, store: Store, tmp_path: Path
):
    pipeline = project / "functions/fish/pipeline.py"
    pipeline.write_text("VALUE = 1\n")
    options: dict[str, Any] = {
        "pipeline": "pipeline.py",
        "endpoint": msgspec.structs.replace(CPU, fallback="small"),
    }
    first = written(project, store, **options)
    shutil.copytree(project / "functions", tmp_path / "other" / "functions")
    again = written(tmp_path / "other", store, **options)
    assert first.endpoint is not None
    assert again.endpoint is not None
    assert (first.function.digest, first.endpoint.digest) == (again.function.digest, again.endpoint.digest)
    prepared = [
        first.endpoint.version / "model.onnx",
        first.function.folder / "model/var/task/fallback/model.onnx",
    ]
    inodes = [path.stat().st_ino for path in prepared]
    pipeline.write_text("VALUE = 2\n")
    changed = written(project, store, **options)
    assert changed.endpoint == first.endpoint
    assert changed.function.digest != first.function.digest
    assert [path.stat().st_ino for path in prepared] == inodes


def lock_of(context: Any) -> str:
    return str((context.folder / "requirements.txt").read_text())


def test_each_lock_has_what_its_side_needs(project: Path, store: Store):
    made = written(project, store, extras=("zstd",), trace=True)
    front, endpoint = lock_of(made.function), lock_of(made.endpoint)
    for name, before, behind in (
        *(("boto3", True, False), ("tenacity", True, False), ("uvicorn", False, True), ("aws-xray-sdk", True, False)),
        *(("zstandard", True, True), ("onnxruntime", False, True), ("onnxruntime-gpu", False, False)),
    ):
        assert (locked_version(front, name) is not None, locked_version(endpoint, name) is not None) == (
            before,
            behind,
        ), name


def test_a_gpu_gets_its_own_runtime_and_the_graph_as_it_is_in_the_store(project: Path, store: Store):
    on_cpu = written(project, store).endpoint
    assert on_cpu is not None
    optimised = (on_cpu.version / "model.onnx").read_bytes()
    endpoint = written(project, store, endpoint=Endpoint(instance="ml.g5.xlarge")).endpoint
    assert endpoint is not None
    names = [line.split("==")[0] for line in lock_of(endpoint).splitlines() if "==" in line]
    assert [name for name in names if name.startswith("onnxruntime")] == ["onnxruntime-gpu"]
    version = store.find("large")
    assert (endpoint.version / "model.onnx").read_bytes() == version.model_path.read_bytes() != optimised
    assert endpoint.manifest.needs == version.manifest.needs


@pytest.mark.parametrize("what", ["fallback", "pipeline"])
def test_a_front_that_runs_something_itself_has_onnxruntime(project: Path, store: Store, what: str):
    (project / "functions" / "fish" / "pipeline.py").write_text("VALUE = 1\n")
    endpoint = msgspec.structs.replace(CPU, fallback="small" if what == "fallback" else "")
    made = written(project, store, endpoint=endpoint, pipeline="pipeline.py" if what == "pipeline" else None)
    assert locked_version(lock_of(made.function), "onnxruntime") is not None


def test_a_fallback_is_packaged_whole_with_what_it_needs(project: Path, store: Store):
    made = written(project, store, endpoint=msgspec.structs.replace(CPU, fallback="small"))
    folder = made.function.folder / "model/var/task/fallback"
    assert paths(folder) == ["labels.txt", "manifest.json", "model.onnx"]
    assert made.fallback is not None
    assert made.fallback.name == "small"
    assert {item.name for item in sizes_of([made.function.folder / "model"])} >= {"fallback's model", "labels"}
    assert written(project, store).function.manifest == made.function.manifest
    assert not folder.exists()


def test_extras_of_the_fallback_are_installed_and_those_of_the_weights_are_not(project: Path, store: Store):
    class Needy:
        """The store, whose versions need Zstandard."""

        def find(self, ref: str) -> Any:
            version = store.find(ref)
            needs = msgspec.structs.replace(version.manifest.needs, extras=["zstd"])
            return replace(version, manifest=msgspec.structs.replace(version.manifest, needs=needs))

    needy: Any = Needy()
    for fallback, installed in (("", False), ("small", True)):
        chosen = function(project, endpoint=msgspec.structs.replace(CPU, fallback=fallback))
        made = write_contexts(project, chosen, needy, needy.find("large"))
        assert (locked_version(lock_of(made.function), "zstandard") is not None) == installed
        assert locked_version(lock_of(made.endpoint), "zstandard")


@pytest.mark.parametrize(
    ("ref", "words"),
    [
        ("nothing", r"function\.toml: endpoint\.fallback: .*nothing.*; name another version, or take it out"),
        ("other", r"fallback is other:1, which takes or gives other tensors than large:1; .*sampan compress large"),
        ("large", r"fallback is large:1 with [\d,]+ bytes, not smaller than large:1 with .*sampan compress large"),
    ],
)
def test_a_fallback_that_does_not_do_is_one_sentence(ref: str, words: str, project: Path, store: Store):
    with pytest.raises(SampanError, match=words):
        written(project, store, endpoint=msgspec.structs.replace(CPU, fallback=ref))
    assert not (project / "build").exists()


def test_a_function_that_was_heavy_gets_its_weights_again(project: Path, store: Store):
    light = written(project, store, placement="lambda")
    assert light.endpoint is None
    written(project, store)
    again = written(project, store, placement="lambda")
    assert again.function == light.function
    assert (again.function.version / "model.onnx").is_file()


def test_a_key_seals_what_has_weights(project: Path, store: Store, tmp_path: Path):
    pytest.importorskip("cryptography")
    make_key(tmp_path / "key")
    chosen = function(project, endpoint=msgspec.structs.replace(CPU, fallback="small"))
    made = write_contexts(project, chosen, store, store.find("large"), key=str(tmp_path / "key"))
    assert made.endpoint is not None
    assert made.fallback is not None
    assert made.endpoint.manifest.sealed
    assert (made.function.folder / "model/var/task/fallback/model.onnx.sealed").is_file()
    assert made.function.manifest.sealed is None
    assert locked_version(lock_of(made.function), "cryptography")


@pytest.mark.parametrize(
    ("architecture", "instance", "words"),
    [
        ("arm64", "ml.g5.xlarge", r'instance is x86_64|ml\.g5\.xlarge is x86_64, and architecture is "arm64"'),
        ("x86_64", "ml.c7g.large", r'ml\.c7g\.large is arm64, and architecture is "x86_64"; write architecture ='),
        ("arm64", "ml.g5g.xlarge", r"ml\.g5g\.xlarge has GPUs beside an arm64 processor, .*ml\.g5\.xlarge"),
        ("x86_64", "ml.g5g.xlarge", r"ml\.g5g\.xlarge has GPUs beside an arm64 processor"),
    ],
)
def test_an_instance_of_another_machine_is_named_with_its_line(
    architecture: str, instance: str, words: str, project: Path
):
    file = project / "functions/fish/function.toml"
    text = f'model = "large"\nplacement = "sagemaker"\narchitecture = "{architecture}"\n[endpoint]\n'
    file.write_text(f'{text}instance = "{instance}"\n')
    with pytest.raises(InvalidInputError, match=rf"function\.toml:5: ({words})"):
        read_function(project, "fish")
    file.write_text(f'{text.replace("sagemaker", "lambda")}instance = "{instance}"\n')
    assert read_function(project, "fish").config.endpoint.instance == instance


@pytest.mark.parametrize(
    ("architecture", "instance"),
    [("x86_64", "ml.g4dn.xlarge"), ("x86_64", "ml.p4de.24xlarge"), ("arm64", "ml.m7gd.large"), ("x86_64", "ml.x.big")],
)
def test_an_instance_of_the_same_machine_or_of_an_unknown_family_is_taken(
    architecture: str, instance: str, project: Path
):
    text = f'model = "large"\nplacement = "sagemaker"\narchitecture = "{architecture}"\n[endpoint]\n'
    (project / "functions/fish/function.toml").write_text(f'{text}instance = "{instance}"\n')
    assert read_function(project, "fish").config.heavy


def packaged(project: Path, store: Store, text: str = "", **order: Any) -> Any:
    toml = 'model = "large"\nplacement = "sagemaker"\npython = "3.11"\n[endpoint]\ninstance = "ml.c7i.large"\n'
    (project / "functions/fish/function.toml").write_text(toml + text)

    return package(project, store, "fish", Order(docker=False, **order))


def test_a_key_that_no_endpoint_reaches_is_refused(project: Path, store: Store):
    with pytest.raises(InvalidInputError, match=r"the endpoint of fish has no network, .*; package it without --key"):
        packaged(project, store, key="kms:arn:aws:kms:eu-west-1:123456789012:key/one")


def test_the_record_and_the_papers_have_both_sides(project: Path, store: Store):
    made = packaged(project, store, 'fallback = "small"\n', base="debian:12", endpoint_base="python:3.11")
    record = json.loads((made.folder / "package.json").read_bytes())
    assert record == msgspec.to_builtins(as_dict(made))
    assert record["arguments"] == {"BASE_IMAGE": "debian:12", "SNAPSTART": ""}
    assert record["reference"].endswith("fish/context")
    endpoint = record["endpoint"]
    assert (endpoint["engine"], endpoint["arguments"]) == ("sampan", {"BASE_IMAGE": "python:3.11"})
    assert (endpoint["image"], endpoint["layers"]) == (None, [])
    assert endpoint["reference"] == endpoint["context"]["folder"]
    assert endpoint["manifest"] != record["manifest"]
    front, behind = (
        json.loads((made.folder / name).read_bytes()) for name in ("bom.cdx.json", "bom-endpoint.cdx.json")
    )
    assert (front["metadata"]["component"]["name"], behind["metadata"]["component"]["name"]) == (
        "fish",
        "fish-endpoint",
    )

    def of(document: Any, kind: str) -> dict[str, Any]:
        return {part["name"]: part for part in document["components"] if part["type"] == kind}

    assert set(of(front, "machine-learning-model")) == {"large", "small"}
    assert "hashes" not in of(front, "machine-learning-model")["large"]
    assert of(front, "machine-learning-model")["small"]["hashes"]
    assert of(behind, "machine-learning-model")["large"]["hashes"]
    assert "boto3" in of(front, "library")
    assert "uvicorn" in of(behind, "library")


def test_without_a_base_an_endpoint_is_built_on_pythons_own(project: Path, store: Store):
    arguments = as_dict(packaged(project, store))["endpoint"]["arguments"]
    assert arguments == {"BASE_IMAGE": "public.ecr.aws/docker/library/python:3.11-slim"}


def test_papers_of_an_endpoint_do_not_outlive_it(project: Path, store: Store):
    folder = packaged(project, store).folder
    (project / "functions/fish/function.toml").write_text('model = "large"\n')
    assert as_dict(package(project, store, "fish", Order(docker=False)))["endpoint"] is None
    assert not (folder / "bom-endpoint.cdx.json").exists()


def test_the_template_asks_for_the_endpoint_and_may_invoke_it(project: Path):
    from sampan.packaging.template import ImageArtefact, sam_template

    template = sam_template(function(project), ImageArtefact("fish:1"))
    properties = template["Resources"]["Function"]["Properties"]
    assert template["Parameters"]["Endpoint"]["Type"] == "String"
    assert properties["Environment"]["Variables"]["SAMPAN_ENDPOINT"] == {"Ref": "Endpoint"}
    assert properties["Policies"][0]["Statement"][0]["Action"] == "sagemaker:InvokeEndpoint"
    light = sam_template(function(project, placement="lambda"), ImageArtefact("fish:1"))
    assert "Parameters" not in light
    assert "Policies" not in light["Resources"]["Function"]["Properties"]


def test_what_is_signed_is_where_the_weights_are(project: Path, store: Store, tmp_path: Path):
    pytest.importorskip("model_signing")
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    key = tmp_path / "key.pem"
    private = ec.generate_private_key(ec.SECP256R1())
    key.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    made = packaged(project, store, signing_key=key)
    envelope = json.loads((made.folder / "model.sig").read_bytes())["dsseEnvelope"]
    assert b"model.onnx" in base64.b64decode(envelope["payload"])


def test_boto3_asks_an_endpoint_from_what_is_left_of_it(tmp_path: Path):
    names = ("boto3", "botocore", "s3transfer", "jmespath", "dateutil", "urllib3", "six")
    target = tmp_path / "python"
    for name in names:
        spec = find_spec(name)
        assert spec is not None
        assert spec.origin is not None
        source = Path(spec.origin)
        if source.name == "__init__.py":
            shutil.copytree(source.parent, target / name)
        else:
            shutil.copy(source, target / source.name)
    before = size(target)
    install.trim(target)
    assert size(target) < before / 3
    code = (
        f"import sys; sys.path[:0] = [{str(target)!r}]; import boto3, botocore\n"
        "assert botocore.__file__.startswith(sys.path[0])\n"
        "access = dict(aws_access_key_id='x', aws_secret_access_key='y')\n"
        "for service in ('sagemaker-runtime', 'sts', 'sso', 'kms', 's3'):\n"
        "    client = boto3.client(service, region_name='eu-west-1', **access)\n"
        "    print(client.meta.endpoint_url)\n"
        "print(client.can_paginate('list_objects_v2'), boto3.resource('s3', region_name='eu-west-1', **access))\n"
    )
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "https://runtime.sagemaker.eu-west-1.amazonaws.com"


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize(("batch", "check", "samples"), [(16, 0, 10), (1, 0, 0), (1, 3, 3)])
def test_golden_samples_go_with_what_proves_by_them(
    batch: int, check: int, samples: int, project: Path, store: Store, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(endpoint_module, "PROVING", 10)
    made = written(project, store, golden_check=check, endpoint=msgspec.structs.replace(CPU, batch=batch))
    assert made.endpoint is not None
    file = made.endpoint.version / "golden.npz"
    assert (len(read_golden(file)) if file.exists() else 0) == samples


def test_a_manifest_without_weights_keeps_what_stands_before_and_after(project: Path, store: Store):
    manifest: Manifest = written(project, store).function.manifest
    whole = store.find("large").manifest
    assert (manifest.signature, manifest.pipeline, manifest.labels, manifest.digest) == (
        whole.signature,
        whole.pipeline,
        whole.labels,
        whole.digest,
    )
