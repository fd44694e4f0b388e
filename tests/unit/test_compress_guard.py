"""The cross-CPU guard: what is proven of 8-bit weights, and what an emulated CPU without VNNI answers."""

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_dynamic, quantize_static

from models import build, classifier, convolution, save
from sampan.compress import saturation
from sampan.compress.guard import EMULATOR, Guard, Machine, Model, check
from sampan.compress.passes import int8_weights
from sampan.contract.metrics import parse_gate
from sampan.serving.cpu import Cpu, live
from sampan.serving.golden import Sample
from sampan.serving.session import OnnxSession

VNNI = Cpu("new", ("avx2", "avx512f", "avx512_vnni"))
PLAIN = Cpu("old", ("avx2",))


# --- what can saturate -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("column", "may"),
    [
        ([127, 1], False),
        ([127, 2], True),
        ([64, 64, -64, -64], False),
        ([65, -90, 64], True),
        ([127, -127], False),
        ([-128, 0], False),
        ([-128, -1], True),
        ([127], False),
    ],
)
def test_two_weights_of_a_sign_saturate_beyond_128(column, may):
    assert saturation.may_saturate(np.array(column, np.int8)[:, None]) is may


def test_channels_do_not_meet_and_unsigned_weights_do_not_saturate():
    assert not saturation.may_saturate(np.array([[127, 0], [0, 127]], np.int8))
    assert not saturation.may_saturate(np.full((4, 4), 255, np.uint8))


def integers(weights: np.ndarray, scale: float = 1 / 512) -> onnx.ModelProto:
    """y = float(quantised x @ weights) · scale: FP32 [batch, features] to [batch, channels]."""
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]),
        helper.make_node("MatMulInteger", ["q", "w", "z"], ["i"]),
        helper.make_node("Cast", ["i"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["f", "c"], ["y"]),
    ]
    specs = [("x", "FP32", ("batch", len(weights)))], [("y", "FP32", ("batch", weights.shape[1]))]
    return build(nodes, *specs, {"w": weights, "c": np.array(scale, np.float32)})


def pictures(count: int = 4) -> list[dict[str, np.ndarray]]:
    random = np.random.default_rng(0)
    return [{"image": random.normal(size=(1, 3, 16, 16)).astype(np.float32)} for _ in range(count)]


class Reader(CalibrationDataReader):
    """Hands pictures to the calibrator."""

    def __init__(self) -> None:
        self._left = iter(pictures())

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._left, None)


def static(tmp_path: Path, name: str, **options: object) -> Path:
    """The convolution model in QDQ form."""
    source, target = save(convolution(), tmp_path / "source.onnx"), tmp_path / f"{name}.onnx"
    quantize_static(source, target, Reader(), quant_format=QuantFormat.QDQ, per_channel=True, **options)
    return target


def look(tmp_path: Path, model: Path, session: dict[str, str] | None = None) -> saturation.Arithmetic:
    folder = tmp_path / f"look-{len(list(tmp_path.glob('look-*')))}"
    folder.mkdir()
    return saturation.arithmetic(model, session or {}, folder)


def test_weights_of_seven_bits_are_proven(tmp_path):
    source = save(classifier(), tmp_path / "source.onnx")
    for reduced in (True, False):
        model = tmp_path / f"{reduced}.onnx"
        quantize_dynamic(source, model, per_channel=True, reduce_range=reduced, weight_type=QuantType.QInt8)
        found = look(tmp_path, model)
        assert sum(found.operators.values()) == 2
        assert (found.unproven == ()) is reduced


def test_the_fused_graph_is_looked_at(tmp_path):
    unsigned = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QUInt8}
    signed = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8}
    full = look(tmp_path, static(tmp_path, "full", **signed))
    assert full.operators["QLinearConv"] == 1
    assert len(full.unproven) == sum(full.operators.values())
    assert look(tmp_path, static(tmp_path, "reduced", reduce_range=True, **signed)).unproven == ()
    assert look(tmp_path, static(tmp_path, "unsigned", **unsigned)).unproven == ()


def test_weights_that_are_folded_at_load_are_no_integers(tmp_path):
    source, model = save(classifier(), tmp_path / "source.onnx"), tmp_path / "weights.onnx"
    int8_weights.apply(source, model)
    assert look(tmp_path, model, int8_weights.SESSION) == saturation.Arithmetic({}, ())


def test_an_option_that_widens_the_weights_is_seen(tmp_path):
    model = save(integers(np.full((8, 2), 127, np.int8)), tmp_path / "m.onnx")
    assert look(tmp_path, model).unproven == ("w",)
    if "avx2" in (live().sets or ()):
        assert look(tmp_path, model, {"session.x64quantprecision": "1"}).unproven == ()


def test_two_activations_are_proven_when_the_second_is_unsigned(tmp_path):
    def product(kind: str, zero: np.generic) -> onnx.ModelProto:
        node = helper.make_node("MatMulInteger", ["a", "b", "za", "zb"], ["y"])
        sides = [("a", "UINT8", ("n", 4)), ("b", kind, (4, "m"))]
        return build([node], sides, [("y", "INT32", ("n", "m"))], {"za": np.array(3, np.uint8), "zb": zero})

    assert look(tmp_path, save(product("UINT8", np.array(3, np.uint8)), tmp_path / "u.onnx")).unproven == ()
    assert look(tmp_path, save(product("INT8", np.array(3, np.int8)), tmp_path / "s.onnx")).unproven == ("b",)


def test_blocks_with_int8_activations_are_not_proven(tmp_path):
    def blocks(accuracy: int) -> onnx.ModelProto:
        shape = {"K": 32, "N": 4, "bits": 4, "block_size": 32, "accuracy_level": accuracy}
        node = helper.make_node("MatMulNBits", ["x", "w", "s"], ["y"], domain="com.microsoft", **shape)
        weights = {"w": np.full((4, 1, 16), 0x9F, np.uint8), "s": np.ones((4, 1), np.float32)}
        return build([node], [("x", "FP32", ("n", 32))], [("y", "FP32", ("n", 4))], weights, domains=["com.microsoft"])

    assert look(tmp_path, save(blocks(4), tmp_path / "4.onnx")).unproven == ("w",)
    assert look(tmp_path, save(blocks(1), tmp_path / "1.onnx")).operators == {}


# --- the guard -------------------------------------------------------------------------------------------------


@pytest.fixture
def full(tmp_path) -> Model:
    """A model whose every pair saturates without VNNI, and its answers with it: exact integers."""
    random = np.random.default_rng(0)
    weights = np.full((64, 3), 127, np.int8)
    path = save(integers(weights), tmp_path / "full.onnx")
    samples = []
    for _ in range(8):
        x = random.uniform(0, 1, (1, 64)).astype(np.float32)
        x[0, 0], x[0, 1] = 0, 1
        quantised = np.rint(x / np.float32(1 / 255))
        samples.append(Sample({"x": x}, {"y": (quantised @ weights.astype(np.float64) / 512).astype(np.float32)}))
    return Model(path, {}, samples, [sample.outputs for sample in samples])


def emulator(tmp_path: Path, body: str) -> str:
    """A program in the place of qemu."""
    program = tmp_path / "emulator"
    program.write_text(f"#!/bin/sh\n{body}\n")
    program.chmod(0o755)
    return str(program)


def answering(count: int) -> str:
    """A slow emulator: it is done with so many of eight samples."""
    late = " ".join(f"00000{index}.npz" for index in range(count, 8))
    return f'for last; do :; done; shift 2; "$@"; cd "$last"; rm -f {late}'


def guard(model: Model, tmp_path: Path, machine: Machine, gate: str = "relative_error<=0.01", **how: float) -> Guard:
    folder = tmp_path / "work"
    folder.mkdir()
    return check(model, [parse_gate(gate)], folder, machine, **how)


def test_a_float_model_is_safe_without_a_try(tmp_path):
    path = save(classifier(), tmp_path / "m.onnx")
    found = guard(Model(path, {}, [], []), tmp_path, Machine(VNNI, None))
    assert (found.safe, found.how) == ("any x86-64", "no integer arithmetic")


def test_a_proof_needs_no_try(tmp_path):
    path = save(integers(np.full((8, 2), 63, np.int8)), tmp_path / "m.onnx")
    found = guard(Model(path, {}, [], []), tmp_path, Machine(VNNI, None))
    assert (found.safe, found.how, found.operators) == ("any x86-64", "proof", {"MatMulInteger": 1})


def test_without_an_emulator_it_is_unknown(full, tmp_path):
    found = guard(full, tmp_path, Machine(VNNI, None))
    assert (found.safe, found.how, found.unproven) == ("unknown", "weights", 1)
    assert "install qemu-user" in found.words


def test_measured_without_vnni_holds_with_it(full, tmp_path):
    found = guard(full, tmp_path, Machine(PLAIN, None))
    assert (found.safe, found.how) == ("any x86-64", "measured here")


def test_another_cpu_that_answers_the_same_is_safe(full, tmp_path):
    session = OnnxSession(full.path, threads=1)
    here = Model(full.path, {}, full.samples, [session.run(sample.inputs) for sample in full.samples])
    found = guard(here, tmp_path, Machine(VNNI, emulator(tmp_path, 'shift 2; exec "$@"')))
    assert (found.safe, found.how, found.samples) == ("any x86-64", "qemu Haswell", 8)
    assert found.largest_difference == 0
    assert "the gates hold" in found.words


def test_another_cpu_that_misses_the_gate_is_told(full, tmp_path):
    other = save(integers(np.full((64, 3), 100, np.int8)), tmp_path / "other.onnx")
    run = f'shift 2; python=$1; shift 4; exec "$python" -m sampan.compress.emulated {other} "$@"'
    found = guard(full, tmp_path, Machine(VNNI, emulator(tmp_path, run)))
    assert (found.safe, found.samples) == ("VNNI only", 8)
    assert "misses relative_error<=0.01" in found.words
    assert not found.gates[0].passed


def test_what_is_wrong_on_both_is_not_blamed_on_the_other(full, tmp_path):
    """Two samples of the first four miss on both CPUs, and the gate holds over all eight."""
    session = OnnxSession(full.path, threads=1)
    answers = [session.run(sample.inputs) for sample in full.samples]
    truth = [{"y": answer["y"] * (2 if index < 2 else 1)} for index, answer in enumerate(answers)]
    samples = [Sample(sample.inputs, right) for sample, right in zip(full.samples, truth, strict=True)]
    both = Model(full.path, {}, samples, answers)
    found = guard(both, tmp_path, Machine(VNNI, emulator(tmp_path, answering(4))), "relative_error<=0.2")
    assert (found.samples, found.gates[0].passed, found.safe) == (4, False, "any x86-64")


def test_a_gate_that_holds_on_three_samples_is_not_believed(full, tmp_path):
    found = guard(full, tmp_path, Machine(VNNI, emulator(tmp_path, answering(3))), "relative_error<=9")
    assert (found.samples, found.safe) == (3, "unknown")
    assert "too few to tell" in found.words


@pytest.mark.parametrize(
    ("body", "words"),
    [("echo no such CPU >&2; exit 1", "failed: no such CPU"), ("exec tail -f /dev/null", "finished no sample in 0.3")],
)
def test_an_emulator_that_fails_leaves_it_unknown(full, tmp_path, body, words):
    found = guard(full, tmp_path, Machine(VNNI, emulator(tmp_path, body)), seconds=0.3 if "tail" in body else 60)
    assert (found.safe, found.samples) == ("unknown", 0)
    assert words in found.words


@pytest.mark.slow
@pytest.mark.skipif(shutil.which(EMULATOR) is None, reason="qemu-user is not installed")
def test_a_real_haswell_saturates(full, tmp_path):
    found = guard(full, tmp_path, Machine(VNNI, shutil.which(EMULATOR)))
    assert found.safe == "VNNI only", found
    assert found.largest_difference > 1
