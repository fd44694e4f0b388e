"""Metrics by hand, gates by a function of the user's, gates in a file, and what samples can certify."""

import sys
from pathlib import Path

import numpy as np
import pytest

from sampan.compress import gates, own
from sampan.compress.declared import gates_of, read_gates
from sampan.contract.errors import GateError, InvalidInputError
from sampan.contract.manifest import GateEntry
from sampan.contract.metrics import Gate, measure, parse_gate

UNIT = [0.0, 0.0, 2.0, 2.0]
HALF = [0.0, 0.0, 2.0, 1.0]  # IoU with UNIT 1/2
FAR = [9.0, 9.0, 10.0, 10.0]
NOTHING = [0.0, 0.0, 0.0, 0.0]


def outputs(*values: list) -> list[dict[str, np.ndarray]]:
    return [{"y": np.array(value, np.float32)} for value in values]


# --- metrics ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reference", "candidate", "value"),
    [
        ([[0.7, 0.2, 0.1]], [[0.5, 0.3, 0.2]], 0.2),  # probabilities as they stand
        ([[1.0, 0.0]], [[0.0, 1.0]], 1.0),
        ([[0.0, 2.0]], [[0.0, 2.0]], 0.0),
        ([[0.0, np.log(3)]], [[0.0, 0.0]], 0.25),  # logits: softmax gives 1/4, 3/4 and 1/2, 1/2
        ([[-500.0, 500.0]], [[500.0, -500.0]], 1.0),
        ([[0.9], [0.2]], [[0.6], [0.2]], 0.15),  # one column
        ([[5.0]], [[5.0]], 0.0),
        ([[0.9, 0.8, 0.1, 0.0]], [[0.5, 0.8, 0.1, 0.0]], 0.1),  # several labels at once
        ([], [], 0.0),
    ],
)
def test_probability_error_by_hand(reference, candidate, value):
    found = measure("probability_error", outputs(reference), outputs(candidate))
    assert found.value == pytest.approx(value, abs=1e-6)


@pytest.mark.parametrize(
    ("reference", "candidate", "value"),
    [
        ([UNIT, FAR], [FAR, UNIT], 1.0),  # in any order
        ([UNIT], [HALF], 0.5),
        ([UNIT, FAR], [UNIT], 0.5),  # one is missing
        ([UNIT], [UNIT, FAR], 0.5),  # one is too many
        ([UNIT, UNIT], [UNIT, FAR], 0.5),  # a box is matched once
        ([UNIT, NOTHING], [UNIT, NOTHING], 1.0),  # padding
        ([NOTHING], [NOTHING], 1.0),
        ([UNIT], [NOTHING], 0.0),
        ([[*UNIT, 0.9, 3.0]], [[*HALF, 0.8, 3.0]], 0.5),  # more columns
        ([[UNIT], [UNIT]], [[UNIT], [FAR]], 0.5),  # pictures
    ],
)
def test_box_iou_by_hand(reference, candidate, value):
    assert measure("box_iou", outputs(reference), outputs(candidate)).value == pytest.approx(value)


def test_the_surest_box_is_matched_first():
    unsure, sure = [*UNIT, 0.2], [*HALF, 0.9]
    assert measure("box_iou", outputs([[*UNIT, 1.0]]), outputs([unsure, sure])).value == pytest.approx(0.25)


@pytest.mark.parametrize("value", [[1.0, 2.0, 3.0, 4.0], [[1.0, 2.0, 3.0]]])
def test_what_holds_no_boxes_is_told(value):
    with pytest.raises(InvalidInputError, match="box_iou needs an output of"):
        measure("box_iou", outputs(value), outputs(value))


def test_boxes_of_another_number_of_pictures_hold_no_gate():
    assert np.isnan(measure("box_iou", outputs([[UNIT], [UNIT]]), outputs([[UNIT]])).value)


# --- a function of the user's ----------------------------------------------------------------------------------


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Writes a module of the project's; its name is new for every test."""
    monkeypatch.setattr("sys.path", [*sys.path])
    own.importable(tmp_path)

    def write(body: str) -> str:
        name = f"mine_{tmp_path.name.replace('-', '_')}"
        (tmp_path / f"{name}.py").write_text(body)
        return name

    return write


TWO = [{"a": np.array([1.0, 2.0]), "b": np.array([5.0])}, {"a": np.array([4.0, 4.0]), "b": np.array([7.0])}]
OTHER = [{"a": np.array([1.0, 1.0]), "b": np.array([5.0])}, {"a": np.array([4.0, 1.0]), "b": np.array([7.0])}]


def test_the_users_function_gets_the_outputs_by_name(module):
    name = module("def drop(reference, candidate):\n    return abs(reference['a'] - candidate['a']).sum()\n")
    found = gates.check([parse_gate(f"{name}:drop<=2")], TWO, OTHER)[0]
    assert (found.gate, found.value, found.standard_error, found.passed) == (f"{name}:drop<=2", 2.0, 1.0, True)


def test_the_users_function_gets_arrays_for_one_output(module):
    name = module("def drop(reference, candidate):\n    return (reference - candidate).max()\n")
    assert gates.check([parse_gate(f"{name}:drop[a]<=1")], TWO, OTHER)[0].value == 2.0


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("def drop(a, b):\n    return 1 / 0\n", r"failed: .*mine_.*\.py:2: ZeroDivisionError: division by zero"),
        ("def drop(a, b):\n    return 'much'\n", "failed: ValueError: could not convert"),
        ("def drop(a):\n    return 0\n", "failed: TypeError"),
        ("def drop(a, b):\n    return a['zz'].sum()\n", r"\.py:2: KeyError: 'zz'"),
        ("def other(a, b):\n    return 0\n", r"finds no function 'drop' in .*mine_.*\.py"),
        ("drop = 3\n", "finds no function 'drop'"),
        ("\n\nimport not_there_at_all\n", r"cannot import mine_.*\.py:3: ModuleNotFoundError"),
        ("def drop(:\n", r"cannot import .*\.py:1: SyntaxError"),
        ("def drop(a, b):\n    return float('nan')\n", "its function gives NaN"),
    ],
)
def test_a_fault_of_the_users_function_names_its_line(module, body, words):
    gate = parse_gate(f"{module(body)}:drop<=1")
    with pytest.raises((InvalidInputError, GateError), match=words):
        gates.check_applicable([gate], TWO)


def test_a_module_that_is_not_there_is_told():
    with pytest.raises(InvalidInputError, match="cannot import not_there_at_all: ModuleNotFoundError"):
        gates.check_applicable([parse_gate("not_there_at_all:drop<=1")], TWO)


@pytest.mark.parametrize("text", ["a.b:c<=1", "m:f[y]>=0.5"])
def test_own_gates_are_read_and_written(text):
    assert parse_gate(text).own
    assert str(parse_gate(text)) == text


@pytest.mark.parametrize("text", ["a:b:c<=1", ":f<=1", "m:<=1", "1m:f<=1", "m..n:f<=1"])
def test_what_is_no_function_is_refused(text):
    with pytest.raises(InvalidInputError, match=r"names no known metric; choose of .*, or give module:function"):
        parse_gate(text)


# --- certified -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gate", "samples"),
    [
        ("cosine>=0.999", 10),
        ("max_abs_error<=0.1", 10),
        ("mine:drop<=0.01", 10),
        ("top1_agreement>=0.5", 10),
        ("top1_agreement>=0.95", 20),
        ("top1_agreement>=0.99", 100),
        ("exact_match>=0.995", 200),
        ("top1_agreement>=1", 10),
        ("top1_agreement<=0.99", 10),
    ],
)
def test_how_many_samples_certify(gate, samples):
    assert gates.needed(parse_gate(gate)) == samples


def test_a_gate_is_certified_by_enough_real_samples():
    limits = [parse_gate("cosine>=0.9"), parse_gate("top1_agreement>=0.95")]
    truth = outputs(*[[[0.1, 0.9]]] * 10)

    def certified(**how: bool) -> list[bool | None]:
        return [entry.certified for entry in gates.check(limits, truth, truth, **how)]

    assert certified() == [True, False]
    assert certified(given=False) == [False, False]


def test_too_few_samples_are_doubted_with_their_number():
    entry = GateEntry(gate="top1_agreement>=0.99", value=1, standard_error=0, samples=64, passed=True)
    assert gates.doubts([entry]) == [
        "top1_agreement>=0.99 was measured on 64 samples only, and 100 are needed to certify it; "
        "give more with --samples to be sure"
    ]


def test_certify_refuses_before_the_work():
    limits = [parse_gate("top1_agreement>=0.99")]
    gates.require_certified(limits, 100, given=True)
    with pytest.raises(GateError, match="99 samples only, and 100 are needed"):
        gates.require_certified(limits, 99, given=True)
    with pytest.raises(GateError, match="generated samples certify nothing"):
        gates.require_certified(limits, 100, given=False)


# --- gates in a file -------------------------------------------------------------------------------------------


def function(project: Path, name: str, text: str) -> Path:
    file = project / "functions" / name / "function.toml"
    file.parent.mkdir(parents=True)
    file.write_text(text)
    return file


@pytest.mark.parametrize("model", ["resnet", "resnet:3", "resnet@live"])
def test_the_function_that_serves_a_model_gives_its_gates(tmp_path, model):
    file = function(tmp_path, "a", f'model = "{model}"\nmemory = 512\ngates = ["cosine>=0.9", "m:f<=1"]\n[budget]\n')
    function(tmp_path, "b", 'model = "other"\ngates = ["cosine>=0.1"]\n')
    function(tmp_path, "c", 'model = "resnet"\n')
    declared = gates_of(tmp_path, "resnet")
    assert (declared.file, declared.gates) == (file, ("cosine>=0.9", "m:f<=1"))
    assert gates_of(tmp_path, "resne") is None
    assert gates_of(tmp_path / "nowhere", "resnet") is None


def test_two_functions_with_gates_are_not_guessed(tmp_path):
    for name in "ab":
        function(tmp_path, name, 'model = "resnet"\ngates = ["cosine>=0.9"]\n')
    with pytest.raises(InvalidInputError, match=r"functions/a/function.toml and .* give gates for resnet; choose one"):
        gates_of(tmp_path, "resnet")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('a = 1\n\ngates = ["cosine"]\n', r"function.toml:3: gate 'cosine' is not METRIC<=X"),
        ('gates = [\n  "cosine>=0.9",\n  "speed>=1",\n]\n', r"function.toml:3: gate 'speed>=1' names no known metric"),
        ('a = 1\ngates = "cosine>=0.9"\n', r"function.toml:2: gates must be a list of texts"),
        ("a = 1\ngates = [0.9]\n", r"function.toml:2: gates must be a list of texts"),
        ('a = 1\nb = \ngates = ["cosine>=0.9"]', r"function.toml:2: this is no TOML"),
        ("a = 1\n", r"function.toml has no gates; write gates ="),
        ("gates = []\n", r"function.toml has no gates; write gates ="),
    ],
)
def test_a_fault_in_the_file_names_its_line(tmp_path, text, words):
    with pytest.raises(InvalidInputError, match=words):
        read_gates(function(tmp_path, "a", text))


def test_a_file_that_is_not_there_is_told(tmp_path):
    with pytest.raises(InvalidInputError, match=r"gates.toml cannot be read: No such file"):
        read_gates(tmp_path / "gates.toml")


def test_an_own_gate_is_no_known_metric_for_serving():
    assert Gate("m:f", None, True, 1).own
    assert not Gate("cosine", None, False, 1).own
