"""The context: same input, same digest; nothing but what is needed; nothing followed, nothing left behind."""

import shutil
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

import models
from sampan.contract.errors import InvalidInputError, ModelError, SampanError
from sampan.contract.function import FunctionConfig
from sampan.packaging import install
from sampan.packaging.context import Context, write_context
from sampan.packaging.plain import tree_digest
from sampan.packaging.project import Function
from sampan.packaging.requirements import locked_version, merge_locks, runtime_lock
from sampan.packaging.rootfs import make_root
from sampan.packaging.seal import make_key
from sampan.store import open_store
from sampan.store.add import add_model
from sampan.store.protocol import Version

ROOT = Path(__file__).parents[2]


@pytest.fixture
def version(tmp_path: Path) -> Version:
    return add_model(open_store(str(tmp_path / "store")), models.save(models.linear(), tmp_path / "tiny.onnx")).version


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "project" / "functions" / "fish").mkdir(parents=True)
    return tmp_path / "project"


def function(project: Path, **options: object) -> Function:
    return Function("fish", project / "functions" / "fish", FunctionConfig(model="tiny", **options))


def paths(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def states(folder: Path) -> dict[str, tuple[int, int]]:
    """Inode and time of change of each file."""
    return {path: ((folder / path).stat().st_ino, (folder / path).stat().st_ctime_ns) for path in paths(folder)}


def test_a_context_has_what_an_image_needs_and_no_more(project: Path, version: Version):
    (project / "functions" / "fish" / "notes.txt").write_text("mine")
    context = write_context(project, function(project), version)

    written = paths(context.folder)
    own = [path for path in written if not path.startswith("code/opt/python/sampan/")]
    assert own == [
        *("Dockerfile", "install.py"),
        *("model/var/task/models/tiny/manifest.json", "model/var/task/models/tiny/model.onnx"),
        *("requirements.txt", "runtime-client.txt"),
    ]
    packages = {path.split("/")[4] for path in written if path not in own}
    assert packages == {"contract", "serving"}
    assert [path for path in written if "__pycache__" in path] == []
    assert (context.folder / "code/opt/python/sampan/serving/function.py").exists()
    assert not (context.folder / "code/opt/python/sampan/__init__.py").exists()
    assert (context.ref, context.folder) == ("tiny:1", project / "build/functions/fish/context")
    assert paths(context.folder.parent / "context") == paths(context.folder)


def test_the_same_input_gives_the_same_digest_anywhere(project: Path, version: Version, tmp_path: Path):
    first = write_context(project, function(project), version)
    shutil.copytree(project / "functions", tmp_path / "other" / "functions")
    again = write_context(tmp_path / "other", function(tmp_path / "other"), version)
    assert first.digest == again.digest == tree_digest(again.folder)
    for path in (*again.folder.rglob("*"), again.folder):
        assert path.stat().st_mtime == install.EPOCH
        assert path.stat().st_mode & 0o777 == (0o755 if path.is_dir() else 0o644)


def test_what_did_not_change_is_not_written_again(project: Path, version: Version):
    first = write_context(project, function(project), version)
    before = states(first.folder)
    second = write_context(project, function(project), version)
    assert second == first
    assert {path: inode for path, (inode, _) in states(second.folder).items()} == {
        path: inode for path, (inode, _) in before.items()
    }


def test_a_change_of_code_takes_the_model_over(project: Path, version: Version):
    pipeline = project / "functions" / "fish" / "pipeline.py"
    pipeline.write_text("VALUE = 1\n")
    first = write_context(project, function(project, pipeline="pipeline.py"), version)
    model = (first.version / "model.onnx").stat().st_ino
    pipeline.write_text("VALUE = 2\n")
    second = write_context(project, function(project, pipeline="pipeline.py"), version)
    assert second.digest != first.digest
    assert (second.folder / "code/var/task/pipeline.py").read_text() == "VALUE = 2\n"
    assert (second.version / "model.onnx").stat().st_ino == model


def test_a_packaged_model_that_was_changed_by_hand_is_made_anew(project: Path, version: Version):
    first = write_context(project, function(project), version)
    (first.version / "model.onnx").write_bytes(b"another model")
    assert write_context(project, function(project), version) == first
    assert tree_digest(first.folder) == first.digest


def test_another_version_takes_the_place_of_the_first(project: Path, version: Version, tmp_path: Path):
    first = write_context(project, function(project), version)
    store = open_store(str(tmp_path / "store"))
    newer = add_model(store, models.save(models.linear(seed=1), tmp_path / "tiny.onnx")).version
    second = write_context(project, function(project), newer)
    assert (second.ref, second.digest != first.digest) == ("tiny:2", True)
    assert write_context(project, function(project), version).digest == first.digest
    assert sorted(path.name for path in first.folder.parent.iterdir()) == ["context", "model.sha256"]


@pytest.mark.parametrize("extra", ["text", "image", "zstd", "encrypt"])
def test_only_the_extras_that_are_needed_are_installed(extra: str, project: Path, version: Version):
    package = {"text": "tokenizers", "image": "pillow", "zstd": "zstandard", "encrypt": "cryptography"}[extra]
    plain = write_context(project, function(project), version).folder / "requirements.txt"
    assert locked_version(plain.read_text(), package) is None
    needs = msgspec.structs.replace(version.manifest.needs, extras=[extra])
    needy = replace(version, manifest=msgspec.structs.replace(version.manifest, needs=needs))
    for asked, of in ((function(project, extras=(extra,)), version), (function(project), needy)):
        text = (write_context(project, asked, of).folder / "requirements.txt").read_text()
        assert locked_version(text, package)
        assert locked_version(text, "onnxruntime")


def test_tracing_brings_its_extra(project: Path, version: Version):
    context = write_context(project, function(project, trace=True), version)
    assert locked_version((context.folder / "requirements.txt").read_text(), "aws-xray-sdk")


def test_a_project_may_have_its_own_dockerfile_and_locks(project: Path, version: Version):
    (project / "functions" / "Dockerfile.lambda").write_text("FROM mine\n")
    (project / "layers" / "handler").mkdir(parents=True)
    (project / "layers" / "handler" / "requirements.txt").write_text("mine==1.0 \\\n    --hash=sha256:00\n")
    folder = write_context(project, function(project), version).folder
    assert (folder / "Dockerfile").read_text() == "FROM mine\n"
    assert (folder / "requirements.txt").read_text() == "mine==1.0 \\\n    --hash=sha256:00\n"


def _link_pipeline(project: Path, version: Version, outside: Path) -> None:
    (project / "functions/fish/pipeline.py").symlink_to(outside / "secret.py")


def _link_folder(project: Path, version: Version, outside: Path) -> None:
    shutil.rmtree(project / "functions/fish")
    (project / "functions/fish").mkdir()
    (project / "functions/fish/own").symlink_to(outside)


def _link_model(project: Path, version: Version, outside: Path) -> None:
    (project / "functions/fish/pipeline.py").write_text("")
    version.model_path.unlink()
    version.model_path.symlink_to(outside / "secret.py")


def _no_pipeline(project: Path, version: Version, outside: Path) -> None:
    """The function names a file that is not there."""


@pytest.mark.parametrize(
    ("prepare", "pipeline", "words"),
    [
        (_link_pipeline, "pipeline.py", r"functions/fish/pipeline\.py cannot be packaged: it is a link"),
        (_link_folder, "own/secret.py", r"own/secret\.py cannot be packaged: it is outside"),
        (_link_model, "pipeline.py", r"model\.onnx cannot be packaged: it is a link"),
        (_no_pipeline, "pipeline.py", r"pipeline\.py is missing; write it, or take `pipeline` out of"),
    ],
)
def test_no_link_is_followed_and_nothing_is_left(prepare, pipeline, words, project, version, tmp_path: Path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret.py").write_text("secret")
    prepare(project, version, outside)
    with pytest.raises(InvalidInputError, match=words):
        write_context(project, function(project, pipeline=pipeline), version)
    assert not [path for path in (project / "build").rglob("*") if path.name.startswith((".context", ".old"))]
    assert not (project / "build/functions/fish/context").exists()


def test_a_failure_leaves_the_context_of_before(project: Path, version: Version):
    first = write_context(project, function(project), version)
    version.model_path.write_bytes(b"broken")
    with pytest.raises(ModelError):
        write_context(project, function(project, golden_check=1), version)
    assert tree_digest(first.folder) == first.digest
    assert not list(first.folder.parent.glob(".*"))


def test_another_key_seals_the_model_anew(project: Path, version: Version, tmp_path: Path):
    pytest.importorskip("cryptography")
    key = tmp_path / "key"
    make_key(key)
    first = write_context(project, function(project), version, key=str(key))
    assert first.manifest.sealed is not None
    assert locked_version((first.folder / "requirements.txt").read_text(), "cryptography")
    assert write_context(project, function(project), version, key=str(key)) == first
    key.unlink()
    make_key(key)
    assert write_context(project, function(project), version, key=str(key)).digest != first.digest
    with pytest.raises(SampanError, match=r"no-such-key"):
        write_context(project, function(project), version, key=str(tmp_path / "no-such-key"))


def test_an_interrupt_leaves_nothing(project: Path, version: Version):
    def interrupted(sentence: str) -> None:
        raise KeyboardInterrupt

    (project / "layers" / "handler").mkdir(parents=True)
    (project / "layers" / "handler" / "requirements.txt").write_text("onnxruntime==0.1 \\\n    --hash=sha256:00\n")
    with pytest.raises(KeyboardInterrupt):
        write_context(project, function(project), version, say=interrupted)
    assert list((project / "build/functions/fish").iterdir()) == []


def test_a_place_that_cannot_be_written_is_named(project: Path, version: Version):
    (project / "build").touch()
    with pytest.raises(SampanError, match="cannot be written: Not a directory"):
        write_context(project, function(project), version)


def test_locks_are_merged_by_package():
    one = "b==1 \\\n    --hash=sha256:b\na==1 ; python_version < '4' \\\n    --hash=sha256:a\n"
    assert merge_locks({"one": one, "two": "b==1 \\\n    --hash=sha256:b\n"}) == (
        "a==1 ; python_version < '4' \\\n    --hash=sha256:a\nb==1 \\\n    --hash=sha256:b\n"
    )


@pytest.mark.parametrize(
    ("locks", "words"),
    [
        (
            {"one": "a==1 \\\n    --hash=sha256:a\n", "two": "a==2 \\\n    --hash=sha256:b\n"},
            r"one and two .* of a \(a==1 a",
        ),
        ({"one": "a>=1\n"}, "one is no lock: 'a>=1' is not NAME==VERSION"),
    ],
)
def test_locks_that_disagree_are_refused(locks: dict[str, str], words: str):
    with pytest.raises(InvalidInputError, match=words):
        merge_locks(locks)


def test_every_lock_of_ours_agrees_with_the_runtime():
    extras = [path.stem for path in (ROOT / "layers/handler/extras").glob("*.txt")]
    assert {"text", "image", "zstd", "trace", "encrypt", "client"} <= set(extras)
    assert runtime_lock(ROOT, extras)


def test_a_root_has_models_and_packages_where_lambda_has_them(project: Path, version: Version, tmp_path: Path):
    (project / "functions" / "fish" / "pipeline.py").write_text("VALUE = 1\n")
    context = _with_installer(write_context(project, function(project, pipeline="pipeline.py"), version))
    for _ in range(2):
        root = make_root(context, cache=tmp_path / "cache")
    assert (root.task / "models/tiny/model.onnx").is_file()
    assert (root.task / "pipeline.py").read_text() == "VALUE = 1\n"
    assert root.path[:2] == (root.task, context.folder / "code/opt/python")
    assert (root.path[2] / "calls.txt").read_text().split() == ["requirements.txt", "runtime-client.txt"]
    assert len(list((tmp_path / "cache").iterdir())) == 1
    other = make_root(context, client=False, cache=tmp_path / "cache")
    assert (other.path[2] / "calls.txt").read_text().split() == ["requirements.txt"]


def test_a_root_that_cannot_be_installed_names_reason_and_log(project: Path, version: Version, tmp_path: Path):
    context = write_context(project, function(project), version)
    (context.folder / "install.py").write_text("import sys; sys.exit('install: there is no network')")
    with pytest.raises(SampanError, match=r"^fish: there is no network; the log is .*install\.log$"):
        make_root(context, cache=tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def _with_installer(context: Context) -> Context:
    """An installer that needs no network: it writes which locks it was given."""
    (context.folder / "install.py").write_text(
        "import pathlib, sys\n"
        "target = pathlib.Path(sys.argv[2]); target.mkdir()\n"
        "(target / 'calls.txt').write_text(' '.join(pathlib.Path(path).name for path in sys.argv[4::2]))\n"
    )
    return context
