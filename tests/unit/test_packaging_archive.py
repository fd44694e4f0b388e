"""Zip placement: what is in both archives, that they are the same each time, that they answer, and what is refused."""

import json
import os
import subprocess
import sys
import sysconfig
from dataclasses import replace
from pathlib import Path
from zipfile import ZipFile

import msgspec
import numpy as np
import pytest

import models
from sampan.contract.function import FunctionConfig
from sampan.contract.tensors import Array
from sampan.packaging import archive, install
from sampan.packaging.archive import ArchiveError, Target, build_archives, lambda_target, this_machine
from sampan.packaging.context import Context
from sampan.packaging.project import Function
from sampan.serving.handler import LambdaHandler
from sampan.serving.repository import load
from sampan.serving.settings import Settings
from sampan.store import open_store
from sampan.store.add import add_model
from serving import Recorder, answer_of, event_of, post

LAYER = Path(__file__).parents[2] / "layers/handler/python/sampan"
# Installs what stands in `wheels/` beside it, and counts; compiles code as the real one does.
INSTALLER = """
import pathlib, runpy, shutil, sys
here = pathlib.Path(__file__).parent
if sys.argv[1] == "code":
    sys.argv[0] = {real!r}
    runpy.run_path({real!r}, run_name="__main__")
elif "broken" in (here / "requirements.txt").read_text():
    print("noise\\ninstall: broken 1.0 has no wheel for Python 3.12 on manylinux_2_34_x86_64", file=sys.stderr)
    sys.exit(1)
else:
    shutil.copytree(here / "wheels", sys.argv[2])
    with (here / "calls.txt").open("a") as calls:
        print(*sys.argv[3:], file=calls)
"""
# Nothing but the two archives and the dependencies of these tests is on the path: no Sampan of theirs.
FUNCTION = """
import json, sys
sys.path[:0] = sys.argv[1:4]
from sampan.serving.function import handler
print(json.dumps(handler(json.load(sys.stdin), None)))
"""


@pytest.fixture
def context(tmp_path: Path) -> Context:
    """A context as `sampan.packaging.context` makes it, its installer replaced by one without a network."""
    version = add_model(open_store(str(tmp_path / "store")), models.save(models.linear(), tmp_path / "l.onnx")).version
    folder = tmp_path / "context"
    _copy(LAYER, folder / "code/opt/python/sampan")
    _copy(version.folder, folder / "model/var/task/models/l")
    put(folder / "install.py", INSTALLER.format(real=str(Path(install.__file__))))
    put(folder / "requirements.txt", "tiny==1.0 --hash=sha256:00\n")
    put(folder / "wheels/tiny/__init__.py", "VALUE = 1\n")
    function = Function("words", tmp_path, FunctionConfig(model="l", python="3.11"))
    return Context(folder, "sha256:00", function, version.ref, version.manifest)


def put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def _copy(source: Path, target: Path) -> None:
    for path in sorted(source.rglob("*")):
        if path.is_file() and path.suffix != ".pyc":
            (target / path.relative_to(source)).parent.mkdir(parents=True, exist_ok=True)
            (target / path.relative_to(source)).write_bytes(path.read_bytes())


def build(context: Context, name: str = "out", **options):
    place = context.folder.parent
    return build_archives(context, place / name, target=this_machine(), cache=place / "cache", **options)


def names(path: Path) -> list[str]:
    with ZipFile(path) as file:
        return file.namelist()


def test_each_archive_has_its_part(context: Context):
    put(context.folder / "code/var/task/pipeline.py", "def build(signature): ...\n")
    made = build(context)
    layer, function = names(made.layer), names(made.function)
    assert {name.split("/")[0] for name in layer} == {"python"}
    assert "python/tiny/__init__.py" in layer
    assert "python/sampan/serving/function.py" in layer
    assert any(name.startswith("python/sampan/serving/__pycache__/function.") for name in layer)
    assert {"pipeline.py", "models/l/manifest.json", "models/l/model.onnx"} <= set(function)
    assert not any("sampan" in name or "tiny" in name for name in function)
    assert layer == sorted(layer)
    assert made.unpacked == sum(
        info.file_size for path in (made.layer, made.function) for info in ZipFile(path).filelist
    )
    assert made.compressed == made.layer.stat().st_size + made.function.stat().st_size
    assert {item.name for item in made.items} >= {"tiny", "Sampan", "own pipeline", "model"}
    assert sum(item.mb for item in made.items) == pytest.approx(made.unpacked / 1e6)


def test_the_same_context_gives_the_same_bytes(context: Context):
    one = build(context, "one")
    for path in context.folder.rglob("*"):
        os.utime(path, (1_700_000_000, 1_700_000_000))
    two = build(context, "two")
    assert one.layer.read_bytes() == two.layer.read_bytes()
    assert one.function.read_bytes() == two.function.read_bytes()
    with ZipFile(one.layer) as file:
        assert {info.date_time for info in file.filelist} == {(1980, 1, 1, 0, 0, 0)}
        assert {info.external_attr >> 16 for info in file.filelist} == {0o100644}


def test_another_model_leaves_the_layer_as_it_is(context: Context):
    one = build(context, "one")
    (context.folder / "model/var/task/models/l/model.onnx").write_bytes(b"another")
    two = build(context, "two")
    assert one.layer.read_bytes() == two.layer.read_bytes()
    assert one.function.read_bytes() != two.function.read_bytes()


def test_dependencies_are_installed_once_for_each_lock_and_target(context: Context):
    calls = context.folder / "calls.txt"
    build(context)
    build(context)
    assert len(calls.read_text().splitlines()) == 1
    place = context.folder.parent
    build_archives(context, place / "out", target=Target("3.99", "manylinux_2_34_x86_64"), cache=place / "cache")
    assert calls.read_text().splitlines()[1].endswith("--platform manylinux_2_34_x86_64 --python-version 3.99")
    put(context.folder / "requirements.txt", "tiny==1.1\n")
    build(context)
    assert len(calls.read_text().splitlines()) == 3


def test_without_the_targets_python_there_is_no_bytecode_and_that_is_said(context: Context):
    place = context.folder.parent
    made = build_archives(context, place / "out", target=Target("3.99"), cache=place / "cache")
    assert not any("__pycache__" in name for name in names(made.layer))
    assert "no Python 3.99 is here" in made.notes[0]
    assert build(context).notes == ()


def test_the_archives_answer_as_the_process_does(context: Context, tmp_path: Path):
    made = build(context)
    for path, folder in ((made.function, "task"), (made.layer, "opt")):
        with ZipFile(path) as file:
            file.extractall(tmp_path / folder)
    ask = post("/v2/models/l/infer", {"inputs": [_tensor(np.arange(8, dtype="f4").reshape(2, 4))]})
    event = event_of("rest", ask)
    handler = LambdaHandler(load([context.folder / "model/var/task/models"], threads=1), Settings(), Recorder())
    expected = handler(event, None)
    assert answer_of(expected).status == 200
    places = [str(tmp_path / "task"), str(tmp_path / "opt/python"), sysconfig.get_path("purelib")]
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", FUNCTION, *places],
        input=json.dumps(event),
        env={"LAMBDA_TASK_ROOT": str(tmp_path / "task")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["body"] == expected["body"]


def _tensor(array: Array) -> dict:
    return {"name": "x", "datatype": "FP32", "shape": list(array.shape), "data": array.ravel().tolist()}


def test_more_than_lambda_unpacks_is_refused_with_what_to_do(context: Context):
    model = context.folder / "model/var/task/models/l/model.onnx"
    os.truncate(model, archive.UNPACKED_LIMIT)  # sparse: takes no room
    with pytest.raises(ArchiveError) as raised:
        build(context)
    assert "over a zip's 262.1 (model has 262.1)" in raised.value.message
    assert 'placement = "lambda"' in raised.value.message
    assert "sampan compress l" in raised.value.message
    assert not (context.folder.parent / "out").exists()


def test_a_large_archive_goes_through_s3(context: Context, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(archive, "UPLOAD_LIMIT", 20_000)  # compressing the true 52 MB takes seconds
    (note,) = build(context).notes
    assert note.startswith("layer.zip has 0.")
    assert note.endswith("so it goes through S3")


def test_an_installer_that_fails_says_why_and_leaves_nothing(context: Context):
    put(context.folder / "requirements.txt", "broken==1.0\n")
    with pytest.raises(ArchiveError) as raised:
        build(context)
    log = context.folder.parent / "install.log"
    reason = "broken 1.0 has no wheel for Python 3.12 on manylinux_2_34_x86_64"
    assert raised.value.message == f"words: {reason}; the log is {log}"
    assert "noise" in log.read_text()
    assert list((context.folder.parent / "cache").iterdir()) == []
    assert not (context.folder.parent / "out").exists()


def test_a_runtime_that_is_too_old_for_the_wheels_is_said(context: Context):
    put(context.folder / "requirements.txt", "broken==1.0\n")
    with pytest.raises(ArchiveError, match=r'on Amazon Linux 2, set python = "3\.12" or newer$'):
        build_archives(context, context.folder.parent / "out", cache=context.folder.parent / "cache")


def test_a_disk_that_refuses_is_said(context: Context):
    put(context.folder.parent / "out", "a file")
    with pytest.raises(ArchiveError, match=r"out cannot be written: File exists$"):
        build(context)


def test_links_in_a_context_are_not_followed(context: Context, tmp_path: Path):
    put(tmp_path / "secret.txt", "secret")
    (context.folder / "model/var/task/models/l/link.txt").symlink_to(tmp_path / "secret.txt")
    assert "models/l/link.txt" not in names(build(context).function)


def test_the_target_is_what_lambda_runs():
    config = FunctionConfig(model="m")
    assert lambda_target(config) == Target("3.12", "manylinux_2_34_x86_64")
    arm = msgspec.structs.replace(config, architecture="arm64", python="3.11")
    assert lambda_target(arm) == Target("3.11", "manylinux_2_26_aarch64")
    assert replace(this_machine(), python="3.99").platform is None


@pytest.mark.parametrize("says", ["import sys; sys.exit('python3.99: command not found')", "print('3.98')"])
def test_a_python_that_is_another_or_none_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, says: str):
    put(tmp_path / "python3.99", f"#!{sys.executable}\n{says}\n")
    (tmp_path / "python3.99").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert archive.find_interpreter("3.99") is None
