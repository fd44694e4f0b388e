"""Zip placement with real dependencies: unpacked as Lambda does it, under the Runtime Interface Emulator."""

from pathlib import Path
from zipfile import ZipFile

import pytest

from conftest import CONTAINERS, Project, missing
from sampan.emulation.artefacts import Artefacts
from sampan.emulation.requests import golden_asks
from sampan.emulation.rie import RieInstance
from sampan.local.requests import rest_event
from sampan.packaging.archive import Archives, build_archives, lambda_target, this_machine
from sampan.packaging.context import Context
from sampan.serving.handler import LambdaHandler
from sampan.serving.repository import load
from sampan.serving.settings import Settings
from sampan.store import open_store
from serving import Recorder

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.timeout(600)]
SAMPLES = 3


@pytest.fixture(scope="module")
def artefacts(project: Project) -> Artefacts:
    store = open_store(str(project.folder / "model_store" / "models"))
    return Artefacts(project.folder, store, "magika")


@pytest.fixture(scope="module")
def context(artefacts: Artefacts) -> Context:
    return artefacts.context


@pytest.fixture(scope="module")
def archives(context: Context, tmp_path_factory: pytest.TempPathFactory) -> Archives:
    return build_archives(context, tmp_path_factory.mktemp("zip"), target=this_machine())


@pytest.fixture(scope="module")
def emulator() -> Path:
    found = sorted(CONTAINERS.glob("sam/lib/python*/site-packages/samcli/local/rapid/aws-lambda-rie-x86_64"))
    if not found:
        missing("there is no Runtime Interface Emulator; run scripts/containers")
    return found[0]


def test_the_archives_answer_under_the_emulator_as_in_process(artefacts: Artefacts, emulator: Path, project: Project):
    """With nothing on the path but what is in the archives, and Lambda's own client."""
    context = artefacts.context
    handler = LambdaHandler(load([context.version], threads=1), Settings(), Recorder())
    version = open_store(str(project.folder / "model_store" / "models")).find(context.ref)
    asks = golden_asks(version.golden()[:SAMPLES], context.manifest)
    assert {ask.form for ask in asks} >= {"binary", "json"}
    instance = RieInstance(artefacts.function, artefacts.unpacked, emulator, "zip")
    try:
        for ask in asks:
            event = rest_event(ask.request)
            answer = instance.invoke(event)
            assert answer.failure is None
            assert answer.result == handler(event, None), ask.form
            assert answer.result["statusCode"] == 200
    finally:
        instance.stop()


def test_both_archives_fit_far_below_the_limits(archives: Archives):
    assert archives.unpacked < 120_000_000
    assert archives.compressed < 50_000_000
    assert archives.notes == ()


def test_a_fresh_installation_gives_the_same_layer(context: Context, archives: Archives, tmp_path: Path):
    again = build_archives(context, tmp_path / "zip", target=this_machine(), cache=tmp_path / "cache")
    assert again.layer.read_bytes() == archives.layer.read_bytes()
    assert again.function.read_bytes() == archives.function.read_bytes()


def test_the_layer_for_lambda_has_lambdas_wheels(context: Context, tmp_path: Path):
    """Whatever Python runs here: wheels of the function's Python, with bytecode where that Python is here."""
    made = build_archives(context, tmp_path / "zip")
    names = ZipFile(made.layer).namelist()
    tag = f"cpython-{lambda_target(context.function.config).python.replace('.', '')}"
    libraries = [name for name in names if name.startswith("python/numpy/") and ".cpython-" in name]
    assert libraries
    assert all(tag in name for name in libraries)
    assert (f"python/sampan/serving/__pycache__/function.{tag}.pyc" in names) == (not made.notes)
