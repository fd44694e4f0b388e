"""Images of a tiny function: the same layers each time, what changes alone is new, one sentence when it fails."""

import os
import signal
import threading
from dataclasses import replace
from pathlib import Path

import pytest

import models
from sampan.contract.errors import InvalidInputError
from sampan.contract.function import FunctionConfig
from sampan.packaging.context import Context, write_context
from sampan.packaging.docker import Engine, EngineError
from sampan.packaging.files import PackagingError
from sampan.packaging.image import BASE_LABEL, CONTEXT_LABEL, Image, build_image
from sampan.packaging.project import Function
from sampan.store import open_store
from sampan.store.add import add_model
from sampan.store.protocol import Version

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("image")


@pytest.fixture(scope="module")
def versions(place: Path) -> tuple[Version, Version]:
    store = open_store(str(place / "store"))
    made = [
        add_model(store, models.save(models.classifier(seed=seed), place / "t.onnx"), name="tiny") for seed in (0, 1)
    ]
    return made[0].version, made[1].version


@pytest.fixture
def build(engine: Engine, base_image: str, place: Path, tmp_path: Path):
    """Write a context and build it; `lines` are the builder's."""

    def built(version: Version, code: str = "", **options: object) -> Image:
        context = written(version, code)
        return build_image(
            engine, context, base=base_image, log=tmp_path / "build.log", cache=place / "layers", **options
        )

    def written(version: Version, code: str = "") -> Context:
        folder = tmp_path / "functions" / "sampan-test-image"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "pipeline.py").write_text(code)
        config = FunctionConfig(model="tiny", pipeline="pipeline.py" if code else None)
        return write_context(tmp_path, Function(folder.name, folder, config), version)

    built.context = written
    return built


@pytest.fixture(scope="module", autouse=True)
def _no_image_stays(engine: Engine):
    yield
    left = engine.output("images", "--quiet", "--filter", "reference=sampan/sampan-test-image").split()
    if left:
        engine.output("image", "rm", "--force", *sorted(set(left)))


def changed(first: Image, second: Image) -> list[str]:
    return [a.kind for a, b in zip(first.layers, second.layers, strict=True) if a.digest != b.digest]


def test_an_image_is_built_once_and_says_what_it_is_made_of(engine, build, versions):
    lines: list[str] = []
    image = build(versions[0], watch=lines.append)
    facts = engine.inspect(image.reference)
    assert image.reference == f"sampan/sampan-test-image:{image.context[7:19]}"
    assert (facts.id, facts.labels[CONTEXT_LABEL], facts.labels[BASE_LABEL]) == (
        image.id,
        image.context,
        image.layers[0].digest,
    )
    version = "import sys; print('{}.{}'.format(*sys.version_info))"
    says = engine.output("run", "--rm", "--network", "none", "--entrypoint", "python3", image.reference, "-c", version)
    assert image.python == says.strip()
    assert lines
    lines.clear()
    assert build(versions[0], watch=lines.append) == image
    assert lines == []


def test_the_image_is_small_and_its_layers_are_measured(build, versions):
    layers = {layer.kind: layer for layer in build(versions[0]).layers}
    assert list(layers) == ["base", "dependencies", "code", "model"]
    above = [layer for kind, layer in layers.items() if kind != "base"]
    assert sum(layer.unpacked for layer in above) < 120_000_000
    assert all(0 < layer.compressed < layer.unpacked and layer.files for layer in above)
    sizes = build(versions[0]).sizes
    assert {"onnxruntime", "numpy", "Sampan", "model"} <= {item.name for item in sizes.items}
    assert sizes.unpacked_mb == pytest.approx(sum(layer.unpacked for layer in above) / 1e6)


def test_a_new_model_changes_the_models_layer_alone_and_code_the_codes(build, versions):
    first = build(versions[0])
    assert changed(first, build(versions[1])) == ["model"]
    assert changed(first, build(versions[0], "def preprocess(value):\n    return value\n")) == ["code"]


def test_a_rebuild_without_a_cache_gives_the_same_layers(engine, base_image, build, versions, tmp_path):
    image = build(versions[0])
    options = ["--no-cache", "--build-arg", f"BASE_IMAGE={base_image}", "--tag", "sampan/sampan-test-image:again"]
    again = engine.popen(
        "build", *options, str(build.context(versions[0]).folder), output=-3, environment={"DOCKER_BUILDKIT": "0"}
    )
    assert again.wait() == 0
    own = [layer.digest for layer in image.layers[1:]]
    facts = engine.inspect("sampan/sampan-test-image:again")
    assert [digest for digest in facts.layers if digest in own] == own


def test_the_function_runs_as_nobody_on_a_read_only_root(engine, build, versions):
    event = {"requestContext": {"http": {"method": "GET"}}, "rawPath": "/v2/models/tiny/ready", "headers": {}}
    code = f"import os, sampan.serving.function as f; print(os.getuid(), f.handler({event}, None)['statusCode'])"
    options = ["--rm", "--label", "sampan=test", "--read-only", "--network", "none", "--entrypoint", "python3"]
    options += ["--user", "993:990"]
    output = engine.output("run", *options, build(versions[0]).reference, "-c", code)
    assert output.splitlines()[-1] == "993 200"


def test_a_tag_is_a_further_name(engine, build, versions):
    image = build(versions[0], tag="sampan/sampan-test-image:mine")
    assert image.reference == "sampan/sampan-test-image:mine"
    assert engine.inspect(image.reference).id == image.id


@pytest.mark.parametrize("tag", ["Bad Tag", "UPPER:1", "name:", "-x", "a:b c"])
def test_a_name_that_docker_refuses_is_refused_before_anything_is_built(tag, build, versions):
    with pytest.raises(InvalidInputError, match="is no name for an image"):
        build(versions[0], tag=tag)


def test_a_base_that_cannot_be_had_is_named(engine, build, versions, tmp_path):
    context = build.context(versions[0])
    with pytest.raises(PackagingError, match=r"^the base image localhost:1/none:1 is not here .*--base-image; the log"):
        build_image(engine, context, base="localhost:1/none:1", log=tmp_path / "log", cache=tmp_path)


def test_what_the_installer_says_is_the_error(engine, base_image, build, versions, tmp_path):
    context = build.context(versions[0])
    (context.folder / "install.py").write_text("import sys; sys.exit('install: broken 1.0 has no wheel')")
    other = replace(context, digest="sha256:" + "0" * 64)
    with pytest.raises(
        PackagingError, match=r"sampan-test-image could not be built: broken 1\.0 has no wheel; the log is"
    ):
        build_image(engine, other, base=base_image, log=tmp_path / "log", cache=tmp_path)


def test_an_interrupted_build_leaves_nothing(engine, base_image, build, versions, tmp_path):
    context = build.context(versions[0])
    (context.folder / "install.py").write_text("import time; time.sleep(60)")
    other = replace(context, digest="sha256:" + "1" * 64)
    mark = f"sampan.test={tmp_path.name}"  # tells this build's stages from those of builds beside it
    dockerfile = context.folder / "Dockerfile"
    dockerfile.write_text(dockerfile.read_text().replace("LABEL ", f"LABEL {mark} "))
    started = threading.Event()

    def watch(line: str) -> None:
        if "install.py dependencies" in line and not started.is_set():
            started.set()
            threading.Timer(1, os.kill, (os.getpid(), signal.SIGINT)).start()

    with pytest.raises(KeyboardInterrupt):
        build_image(engine, other, base=base_image, log=tmp_path / "log", cache=tmp_path, watch=watch)
    assert started.is_set()
    assert engine.output("ps", "--all", "--quiet", "--filter", f"label={mark}") == ""
    assert engine.output("images", "--all", "--quiet", "--filter", f"label={mark}") == ""


def test_an_engine_that_is_gone_is_one_sentence(build, versions, tmp_path):
    context = build.context(versions[0])
    with pytest.raises(EngineError, match="no Docker engine answers"):
        build_image(Engine(str(tmp_path / "no-docker")), context, base="x", log=tmp_path / "log", cache=tmp_path)
