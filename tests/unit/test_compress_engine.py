"""Compression from end to end on tiny models: what is registered holds its gates, all else leaves no trace."""

import json
from pathlib import Path

import numpy as np
import pytest

from models import classifier, linear, not_a_number, save
from sampan.compress.candidate import Effort
from sampan.compress.engine import compress
from sampan.compress.recipes import BY_NAME, Recipe, Step
from sampan.compress.report import NothingHeldError
from sampan.contract.errors import GateError, InvalidInputError
from sampan.contract.metrics import measure, parse_gate
from sampan.serving.golden import replay
from sampan.serving.session import OnnxSession
from sampan.store import open_store
from sampan.store.add import add_model

BRIEF = Effort(seconds=0.01, loads=1)
INT8, FP16 = BY_NAME["int8-weights"], BY_NAME["fp16-weights"]


@pytest.fixture
def store(tmp_path):
    store = open_store(tmp_path / "store")
    add_model(store, save(classifier(), tmp_path / "classifier.onnx"), name="classifier", licence="MIT")
    return store


@pytest.fixture
def own_passes(tmp_path, monkeypatch):
    """Passes outside the package, which the worker finds by their dotted path."""
    folder = tmp_path / "passes" / "own"
    folder.mkdir(parents=True)
    monkeypatch.setenv("PYTHONPATH", str(folder.parent))
    head = "import os, shutil, signal, time\nimport onnx\nNAME, EXACT, SESSION = 'own', {exact}, {{}}\n"

    def write(name: str, body: str, exact: bool = False) -> Recipe:
        text = head.format(exact=exact) + f"def apply(model_in, model_out):\n    {body}\n    return {{}}\n"
        (folder / f"{name}.py").write_text(text)
        return Recipe(name, (Step(f"own.{name}"),))

    return write


def run(store, ref="classifier", recipes=(INT8,), **options):
    return compress(store, ref, recipes=recipes, effort=options.pop("effort", BRIEF), **options)


def test_the_winner_is_a_version_with_lineage(store):
    outcome = run(store, recipes=(FP16, INT8), gate=["cosine>=0.99", "max_abs_error<=0.05"])
    manifest = outcome.version.manifest
    assert (manifest.ref, manifest.parent, manifest.licence) == ("classifier:2", "classifier:1", "MIT")
    assert manifest.recipe["name"] == "int8-weights"
    assert [step["name"] for step in manifest.recipe["passes"]] == ["constants", "opset", "int8-weights"]
    assert manifest.needs.session == {"session.disable_quant_qdq": "1"}
    assert [entry.passed for entry in manifest.gates] == [True, True]
    assert manifest.size < 0.35 * store.find("classifier:1").manifest.size


def test_what_is_registered_holds_its_gates_when_measured_again(store):
    version = run(store).version
    source, samples = store.find("classifier:1"), version.golden()
    original = OnnxSession(source.model_path)
    served = OnnxSession(version.model_path, config=version.manifest.needs.session)
    truth = [original.run(sample.inputs) for sample in samples]
    answers = [served.run(sample.inputs) for sample in samples]
    for entry in version.manifest.gates:
        gate = parse_gate(entry.gate)
        assert gate.holds(measure(gate.metric, truth, answers).value)
    assert replay(served, samples, version.manifest).passed
    assert np.allclose(samples[0].truth["probabilities"], truth[0]["probabilities"])


def test_the_same_again_is_the_same_version(store):
    first, second = run(store, ref="classifier:1"), run(store, ref="classifier:1")
    assert (first.existed, second.existed) == (False, True)
    assert first.version.ref == second.version.ref
    assert store.versions("classifier") == [1, 2]


def test_the_report_tells_of_every_candidate(store):
    outcome = run(store, recipes=(INT8, FP16), seed=5)
    report = json.loads((outcome.version.folder / "report.json").read_text())
    assert (report["schema"], report["seed"], report["winner"]) == (1, 5, "int8-weights")
    assert report["source"]["ref"] == "classifier:1"
    assert report["machine"].keys() >= {"cpu", "cores", "python", "onnxruntime", "numpy"}
    for candidate in report["candidates"]:
        assert candidate["size_ratio"] == candidate["size"] / report["source"]["size"]
        assert candidate["latency"]["low"] <= candidate["latency"]["ratio"] <= candidate["latency"]["high"]
        assert candidate["metrics"].keys() >= {"top1_agreement", "cosine", "max_abs_error", "relative_error"}
        assert candidate["peak_bytes"] > 0


def test_a_gate_that_nothing_holds_registers_nothing(store):
    with pytest.raises(
        NothingHeldError, match=r"nearest came (int8|fp16)-weights where max_abs_error<=0 is"
    ) as failure:
        run(store, recipes=(INT8, FP16), gate=["max_abs_error<=0"])
    assert store.versions("classifier") == [1]
    assert [candidate.holds for candidate in failure.value.report.candidates] == [False, False]


def test_a_fallback_runs_when_the_plain_recipe_misses(store):
    fallback = Recipe("fallback", FP16.steps, instead_of="int8-weights")
    outcome = run(store, ref="classifier:1", recipes=(INT8, fallback), gate=["max_abs_error<=1e-3"])
    assert outcome.report.winner == "fallback"
    outcome = run(store, ref="classifier:1", recipes=(INT8, fallback), gate=["cosine>=0.9"])
    assert [candidate.recipe for candidate in outcome.report.candidates] == ["int8-weights"]


def test_small_losses_do_not_add_up_unseen(store):
    run(store, recipes=(FP16,))
    second = run(store, ref="classifier:2", recipes=(Recipe("all", (*BY_NAME["optimize"].steps, *INT8.steps)),))
    truth = store.find("classifier:1").golden()[0].outputs["probabilities"]
    assert second.version.manifest.parent == "classifier:2"
    assert np.array_equal(second.version.golden()[0].truth["probabilities"], truth)


def test_given_samples_become_the_golden_ones(store, tmp_path):
    x = np.random.default_rng(1).normal(size=(12, 1, 64)).astype(np.float32)
    np.savez(tmp_path / "samples.npz", x=x)
    manifest = run(store, samples=tmp_path / "samples.npz").version.manifest
    assert (manifest.golden.count, manifest.golden.source) == (12, "given")
    assert manifest.gates[0].samples == 12


@pytest.mark.parametrize(
    ("name", "body", "words"),
    [
        ("crash", "os.kill(os.getpid(), signal.SIGSEGV)", "pass own.crash crashed (signal 11, SIGSEGV)"),
        ("quit", "os._exit(3)", "pass own.quit crashed (exit code 3)"),
        ("fail", "raise RuntimeError('no such kernel')", "pass own.fail failed: RuntimeError: no such kernel"),
        ("empty", "open(model_out, 'w').close()", "is not ONNX, or is cut short"),
    ],
)
def test_a_pass_that_breaks_costs_one_candidate(store, own_passes, name, body, words):
    outcome = run(store, recipes=(own_passes(name, body), INT8))
    assert words in outcome.report.candidates[0].error
    assert outcome.report.winner == "int8-weights"


def test_a_pass_that_hangs_is_stopped(store, own_passes):
    recipe = own_passes("hang", "time.sleep(600)")
    with pytest.raises(NothingHeldError, match="took longer than 3 seconds"):
        run(store, recipes=(recipe,), effort=Effort(seconds=0.01, loads=1, timeout=3))


LIE = "m = onnx.load(model_in); {}; onnx.save(m, model_out)"


@pytest.mark.parametrize(
    ("name", "change", "exact", "words"),
    [
        ("renamed", "m.graph.output[0].name = m.graph.node[-1].output[0] = 'other'", False, "the outputs changed"),
        ("retyped", "m.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1", False, "the inputs changed"),
        ("reshaped", "m.graph.node[0].attribute.add(name='transB', i=1, type=2)", False, "pass own.reshaped failed"),
        (
            "infinite",
            "m.graph.initializer[1].raw_data = b'\\x00\\x00\\xc0\\x7f' * 256",
            False,
            "was finite and no longer",
        ),
        ("changed", "m.graph.initializer[3].raw_data = bytes(40)", True, "in a pass that changes nothing"),
    ],
)
def test_a_pass_that_lies_is_refused(store, own_passes, name, change, exact, words):
    recipe = own_passes(name, LIE.format(change), exact)
    with pytest.raises(NothingHeldError) as failure:
        run(store, recipes=(recipe,))
    assert words in failure.value.report.candidates[0].error
    assert store.versions("classifier") == [1]


def test_a_lossy_pass_that_ruins_the_answers_misses_the_gate(store, own_passes):
    recipe = own_passes("ruin", LIE.format("m.graph.initializer[2].raw_data = bytes(10240)"))
    with pytest.raises(NothingHeldError) as failure:
        run(store, recipes=(recipe,))
    assert not failure.value.report.candidates[0].holds


def test_nothing_to_compress_is_said(store, tmp_path):
    add_model(store, save(linear(), tmp_path / "linear.onnx"), name="linear")
    with pytest.raises(NothingHeldError, match="no float weights worth storing smaller"):
        run(store, ref="linear", recipes=(INT8, FP16))


def test_a_source_that_answers_nan_is_refused(store, tmp_path):
    add_model(store, save(not_a_number(), tmp_path / "nan.onnx"), name="nan")
    with pytest.raises(GateError, match="the source itself answers NaN"):
        run(store, ref="nan")


def test_an_unknown_metric_is_refused_before_any_work(store):
    with pytest.raises(InvalidInputError, match="names no known metric"):
        run(store, gate=["speed>=1"])


def test_nothing_is_left_behind(store, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    run(store)
    assert list(tmp_path.glob("sampan-compress-*")) == []
    assert list((Path(store.location) / ".staging").iterdir()) == []
