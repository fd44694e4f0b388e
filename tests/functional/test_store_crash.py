"""A writer dies, the disk is full, many write at once: the store stays sound and nothing is lost."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import models
from sampan.contract.errors import StoreError
from sampan.store import LocalStore
from sampan.store.add import add_model
from sampan.store.moves import promote
from sampan.store.verify import verify

TESTS = Path(__file__).parents[1]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(TESTS)}

# Adds a second version and moves the alias to it, and dies at the k-th thing it does to the store's files, for
# k = 1, 2, … until a whole run survives. After each death the store must be sound, and the same run again must
# end well and leave nothing behind. Sessions are opened in children only: a process with onnxruntime's threads
# cannot be forked.
EVERY_POINT = """
import os, shutil, signal, sys
from pathlib import Path
import models
from sampan.store import LocalStore
from sampan.store.add import add_model
from sampan.store.moves import promote
from sampan.store.verify import verify

TOUCHES = ("open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "shutil.rmtree")
home = Path(sys.argv[1])
first = models.save_with_external_data(models.linear(seed=1), home / "first.onnx", "first.bin")
second = models.save_with_external_data(models.linear(seed=2), home / "second.onnx", "second.bin")

def forked(function, *arguments):
    child = os.fork()
    if child == 0:
        try:
            function(*arguments)
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitpid(child, 0)[1]

def put(store, path):
    promote(store, add_model(store, path, name="m").version.ref)

def die(store, k):
    left = k
    def hook(event, arguments):
        nonlocal left
        if event == "fcntl.flock" or (event in TOUCHES and str(arguments[0]).startswith(store.location)):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(hook)
    put(store, second)

def finish(store):
    assert verify(store).sound, verify(store).problems
    put(store, second)
    assert verify(store).sound, verify(store).problems

assert forked(put, LocalStore(home / "start"), first) == 0
for k in range(1, 1000):
    store = LocalStore(shutil.copytree(home / "start", home / str(k)))
    status = forked(die, store, k)
    live = store.find("m@live").manifest.version
    assert live in (1, 2), k
    assert forked(finish, store) == 0, k
    assert store.versions("m") == [1, 2], k
    assert store.find("m@live").ref == "m:2", k
    assert not list((store.root / ".staging").iterdir()), k
    if os.WIFEXITED(status):
        assert os.WEXITSTATUS(status) == 0, k
        break
print(k)
"""

# Adds models of one name and says each version it got.
WRITER = """
import sys
from pathlib import Path
import models
from sampan.store import LocalStore
from sampan.store.add import add_model
from sampan.store.moves import promote

home, start, count = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
store = LocalStore(home / "store")
print("ready", flush=True)
for seed in range(start, start + count):
    path = models.save(models.classifier(seed=seed), home / f"{seed}.onnx")
    version = add_model(store, path, name="m").version
    print(version.manifest.version, flush=True)
    promote(store, version.ref, proof=False)
"""


def writer(home: Path, start: int, count: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, str(home), str(start), str(count)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT)


@pytest.mark.slow
def test_a_kill_at_every_point_leaves_a_sound_store(tmp_path: Path):
    done = subprocess.run(
        [sys.executable, "-c", EVERY_POINT, str(tmp_path)],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 20


@pytest.mark.slow
def test_a_kill_at_any_moment_loses_nothing_that_was_said(tmp_path: Path):
    said: set[int] = set()
    for moment in range(10):
        process = writer(tmp_path, moment * 1000, 1000)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.013 * (moment + 1))
        process.send_signal(signal.SIGKILL)
        out, _ = process.communicate()
        said |= {int(line) for line in out.splitlines(keepends=True) if line.endswith("\n")}
        assert verify(LocalStore(tmp_path / "store"), quick=True).sound
    store = LocalStore(tmp_path / "store")
    assert said <= set(store.versions("m"))
    assert verify(store).sound


def test_writers_at_once_get_their_own_numbers(tmp_path: Path):
    processes = [writer(tmp_path, start, 10) for start in (0, 1000)]
    numbers = [int(line) for process in processes for line in process.communicate()[0].split()[1:]]
    assert all(process.returncode == 0 for process in processes)
    assert sorted(numbers) == list(range(1, 21))
    store = LocalStore(tmp_path / "store")
    assert len(store.aliases("m")["live"].moves) == 20
    assert verify(store).sound


def test_a_living_draft_is_not_swept(tmp_path: Path):
    store = LocalStore(tmp_path / "store")
    with store.draft("m") as draft:
        process = writer(tmp_path, 0, 1)
        process.communicate()
        assert draft.folder.is_dir()


@pytest.fixture
def small_disk(tmp_path: Path):
    """A file system of 600 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, check=False, capture_output=True).returncode != 0:
        pytest.skip("only root may mount a small disk")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_one_sentence_and_loses_nothing(tmp_path: Path, small_disk: Path):
    store = LocalStore(small_disk / "store")
    seeds = iter(range(100))

    def add_until_full() -> None:
        for seed in seeds:
            version = add_model(store, models.save(models.classifier(seed=seed), tmp_path / "m.onnx")).version
            promote(store, version.ref, proof=False)

    with pytest.raises(StoreError, match="disk is full; make room and try again"):
        add_until_full()
    assert store.versions("m")
    assert verify(store).sound
    assert list((store.root / ".staging").iterdir()) == []
