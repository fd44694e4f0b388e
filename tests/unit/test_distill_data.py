"""Rows to learn from: read, split, answered by the teacher."""

import numpy as np
import pytest
from onnx import helper

from models import build, classifier, identity, linear, save, several
from sampan.contract.errors import GateError, InvalidInputError
from sampan.distill.data import check_signature, read_rows, split
from sampan.distill.teacher import answer, check_finite, heads
from sampan.distill.training import Training
from sampan.serving.session import OnnxSession


def session(model, tmp_path):
    return OnnxSession(save(model, tmp_path / "model.onnx"))


def numbers(count: int, features: int = 4):
    return np.random.default_rng(0).normal(size=(count, features)).astype(np.float32)


def test_rows_come_stacked_or_from_a_folder_without_doubles(tmp_path):
    x = numbers(40)
    np.savez(tmp_path / "stacked.npz", x=np.concatenate([x, x[:5]]))
    folder = tmp_path / "folder"
    folder.mkdir()
    for index in range(0, 40, 2):
        np.savez(folder / f"{index:02}.npz", x=x[index : index + 2])
    signature = session(linear(), tmp_path).signature
    stacked, single = (read_rows(path, signature) for path in (tmp_path / "stacked.npz", folder))
    assert (len(stacked), stacked.doubles) == (40, 5)
    assert (len(single), single.doubles) == (40, 0)
    np.testing.assert_array_equal(stacked.arrays["x"], x)
    np.testing.assert_array_equal(single.arrays["x"], x)


def test_too_few_rows_are_refused(tmp_path):
    np.savez(tmp_path / "x.npz", x=np.repeat(numbers(29), 2, 0))
    with pytest.raises(InvalidInputError, match="has 29 different rows, a student needs 30"):
        read_rows(tmp_path / "x.npz", session(linear(), tmp_path).signature)


def test_rows_of_several_sizes_are_refused(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    for size in (3, 5):
        np.savez(folder / f"{size}.npz", x=np.zeros((20, size), np.float32))
    signature = session(identity(shape=("n", "m")), tmp_path).signature
    with pytest.raises(InvalidInputError, match=r"comes in 2 sizes, such as \[\[3\], \[5\]\]; pad or cut"):
        read_rows(folder, signature)


def test_the_parts_are_disjoint_and_follow_the_seed():
    parts, same, other = split(5000, 0.1, 0), split(5000, 0.1, 0), split(5000, 0.1, 1)
    assert (len(parts.train), len(parts.validation), len(parts.held_out)) == (4244, 500, 256)
    assert set(parts.train) | set(parts.validation) | set(parts.held_out) == set(range(5000))
    np.testing.assert_array_equal(parts.train, same.train)
    assert (parts.train != other.train).any()


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (several(), "output 'twice' is INT64; a student learns numbers only"),
        (identity("BF16", ("n", 2)), "input 'x' is BF16, which torch cannot be trained on"),
        (identity("FP32", (3, 2)), r"'x' has shape \[3, 2\]: a student needs a first axis that counts rows"),
    ],
)
def test_a_teacher_that_nobody_can_stand_in_for_is_refused(model, words, tmp_path):
    with pytest.raises(InvalidInputError, match=words):
        check_signature(session(model, tmp_path).signature)


@pytest.mark.parametrize("rows", ["batch", 1])
def test_the_teacher_answers_in_batches_or_one_by_one(rows, tmp_path):
    nodes = [helper.make_node("Mul", ["x", "x"], ["y"])]
    model = session(build(nodes, [("x", "FP32", (rows, 4))], [("y", "FP32", (rows, 4))]), tmp_path)
    told: list[int] = []
    answers = answer(model, {"x": numbers(130)}, told.append)
    np.testing.assert_allclose(answers["y"], numbers(130) ** 2)
    assert told[-1] == 130
    assert len(told) == (3 if rows == "batch" else 130)


def test_an_output_without_an_entry_a_row_is_refused(tmp_path):
    nodes = [helper.make_node("ReduceSum", ["x"], ["y"], keepdims=1)]
    model = session(build(nodes, [("x", "FP32", ("n", 4))], [("y", "FP32", (1, 1))]), tmp_path)
    with pytest.raises(InvalidInputError, match=r"output 'y' has shape \[1, 1\] for 64 rows"):
        answer(model, {"x": numbers(130)})


def test_answers_that_are_no_numbers_are_refused():
    with pytest.raises(GateError, match="NaN or infinite values in 'y'"):
        check_finite({"y": np.array([[1.0, np.nan]])})


def test_heads_are_told_from_the_answers(tmp_path):
    probabilities = answer(session(classifier(), tmp_path), {"x": numbers(50, 64)})
    assert heads(probabilities, {"Softmax": 1}) == {"probabilities": "softmax"}
    shares = {"y": np.random.default_rng(0).uniform(size=(50, 3))}
    assert heads(shares, {"Sigmoid": 1}) == {"y": "sigmoid"}
    assert heads(shares, {"Add": 1}) == {"y": "linear"}
    assert heads({"y": numbers(50)}, {"Sigmoid": 1, "Softmax": 1}) == {"y": "linear"}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"epochs": 0}, "--epochs must be at least 1"),
        ({"patience": -1}, "--patience must be at least 0"),
        ({"lr": 0.0}, "--temperature and --lr must be above 0"),
        ({"held_out": 0.5}, "--held-out must be above 0 and at most 0.4"),
        ({"processes": 9, "batch": 8}, "--processes 9 is more than the rows of a batch"),
    ],
)
def test_settings_that_cannot_train_are_refused(settings, words):
    with pytest.raises(InvalidInputError, match=words):
        Training(**settings).check()


def test_the_learning_rate_follows_the_optimiser():
    assert (Training(optimiser="sgd").rate, Training().rate, Training(lr=0.5).rate) == (0.05, 2e-3, 0.5)
