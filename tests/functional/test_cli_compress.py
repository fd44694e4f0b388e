"""`sampan compress` as a person runs it."""

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from models import classifier, save

FAST = ("--fast", "--recipe", "int8-weights")


def command(store, *words):
    return [sys.executable, "-m", "sampan.cli.main", "--store", str(store), *map(str, words)]


def sampan(store, *words):
    return subprocess.run(command(store, *words), capture_output=True, text=True, timeout=110, check=False)


@pytest.fixture
def store(tmp_path):
    model = save(classifier(), tmp_path / "classifier.onnx")
    added = sampan(tmp_path / "store", "add", model)
    assert added.returncode == 0, added.stderr
    return tmp_path / "store"


def contents(store: Path) -> dict[str, bytes]:
    return {str(path.relative_to(store)): path.read_bytes() for path in store.rglob("*") if path.is_file()}


def test_stdout_is_the_reference_and_stderr_the_table(store, tmp_path):
    done = sampan(store, "compress", "classifier", *FAST, "--report", tmp_path / "out")
    assert (done.returncode, done.stdout) == (0, "classifier:2\n")
    assert "no --gate given: cosine>=0.99" in done.stderr
    assert "chosen" in done.stderr
    assert "generated" in done.stderr
    assert json.loads((tmp_path / "out" / "report.json").read_text())["winner"] == "int8-weights"


def test_json_is_the_report(store):
    done = sampan(store, "compress", "classifier:1", *FAST, "--gate", "cosine>=0.99", "-o", "json")
    report = json.loads(done.stdout)
    assert (report["ref"], report["gates"]) == ("classifier:2", ["cosine>=0.99"])
    assert report["candidates"][0]["size_ratio"] < 0.35


def test_a_gate_that_nothing_holds_exits_with_1_and_the_table(store, tmp_path):
    before = contents(store)
    done = sampan(store, "compress", "classifier", *FAST, "--gate", "max_abs_error<=0", "--report", tmp_path / "out")
    assert (done.returncode, done.stdout) == (1, "")
    assert "misses max_abs_error<=0" in done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith("Error: no candidate holds every gate")
    assert contents(store) == before
    assert json.loads((tmp_path / "out" / "report.json").read_text())["winner"] is None


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("nothing",), "nothing"),
        (("classifier", "--gate", "cosine"), "is not METRIC<=X or METRIC>=X"),
        (("classifier", "--gate", "beauty>=1"), "names no known metric"),
        (("classifier", "--gate", "cosine[z]>=1"), "names no output"),
        (("classifier", "--recipe", "zip"), "there is no recipe 'zip'"),
        (("classifier", "--samples", "missing.npz"), "no such samples"),
    ],
)
def test_a_mistake_is_one_clear_line(store, words, said):
    done = sampan(store, "compress", *words)
    assert (done.returncode, done.stdout) == (1, "")
    assert said in done.stderr.strip().splitlines()[-1]


def test_an_unknown_objective_is_wrong_usage(store):
    assert sampan(store, "compress", "classifier", "--objective", "beauty").returncode == 2


def test_ctrl_c_leaves_the_store_as_it_was(store, tmp_path):
    """Interrupted while a worker runs: seen by the folder that the engine works in."""
    place = tmp_path / "temporary"
    place.mkdir()
    before = contents(store)
    words = command(store, "compress", "classifier", "--fast")
    process = subprocess.Popen(
        words,
        env={**os.environ, "TMPDIR": str(place), "HOME": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    while process.poll() is None and not list(place.glob("sampan-compress-*/pass-*")):
        pass
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert out == b""
    assert b"Traceback" not in err
    assert contents(store) == before
    assert list(place.glob("sampan-compress-*")) == []


def journals(home: Path) -> list[dict]:
    """The whole lines of a search that was interrupted."""
    texts = [path.read_text() for path in home.glob(".cache/sampan/compress/search-*.jsonl")]
    return [json.loads(line) for text in texts for line in text.splitlines(keepends=True) if line.endswith("\n")]


def test_ctrl_c_then_the_same_again_goes_on_where_it_stopped(store, tmp_path):
    """Interrupted once the first candidate is in the journal: its figures are those of the second run's report."""
    home = tmp_path / "home"
    home.mkdir()
    words = command(store, "compress", "classifier", "--fast", "--gate", "cosine>=0.99", "--report", tmp_path / "out")
    environment = {**os.environ, "HOME": str(home)}
    before = contents(store)
    process = subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    while process.poll() is None and not journals(home):
        with suppress(subprocess.TimeoutExpired):
            process.wait(0.02)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (1, b"")
    assert b"Traceback" not in err
    assert contents(store) == before
    noted = journals(home)
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=110, check=False)
    assert (done.returncode, done.stdout) == (0, "classifier:2\n")
    candidates = {
        item["recipe"]: item for item in json.loads((tmp_path / "out" / "report.json").read_text())["candidates"]
    }
    assert len(candidates) > len(noted) >= 1
    for line in noted:
        assert candidates[line["candidate"]["recipe"]]["latency"] == line["candidate"]["latency"]
    assert journals(home) == []


def test_help_loads_nothing_heavy():
    code = "import sys, sampan.cli.compress; print({'numpy', 'onnx', 'onnxruntime', 'rich'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
