"""Samples as people give them, good and bad."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest

from sampan.contract.errors import InvalidInputError
from sampan.contract.tensors import Signature, TensorSpec, bfloat16_bits
from sampan.store.samples import MAX_INFLATED, MAX_SAMPLES, read_samples, spread

PICTURE = Signature((TensorSpec("x", "FP32", (-1, 4)),), ())
UNBATCHED = Signature((TensorSpec("x", "FP32", (4,)), TensorSpec("t", "INT64", ())), ())


def saved(path: Path, **arrays: object) -> Path:
    np.savez(path, **{name: np.asarray(array) for name, array in arrays.items()})
    return path


def test_samples_of_the_input_s_rank_keep_a_batch_axis(tmp_path: Path):
    stack = np.arange(12, dtype=np.float32).reshape(3, 4)
    given = read_samples(saved(tmp_path / "s.npz", x=stack), PICTURE)
    assert given.total == 3
    assert [sample["x"].tolist() for sample in given.samples] == [[row] for row in stack.tolist()]


def test_samples_with_one_more_axis_are_taken_off_it(tmp_path: Path):
    x, t = np.arange(8, dtype=np.float32).reshape(2, 4), np.array([5, 6])
    given = read_samples(saved(tmp_path / "s.npz", x=x, t=t), UNBATCHED)
    assert [sample["x"].shape for sample in given.samples] == [(4,), (4,)]
    assert [int(sample["t"]) for sample in given.samples] == [5, 6]


def test_a_folder_is_one_sample_a_file(tmp_path: Path):
    for index in range(3):
        saved(tmp_path / f"{index}.npz", x=np.full((index + 1, 4), index, np.float32))
    given = read_samples(tmp_path, PICTURE)
    assert [sample["x"].shape for sample in given.samples] == [(1, 4), (2, 4), (3, 4)]


def test_more_samples_than_are_kept_are_spread_evenly(tmp_path: Path):
    given = read_samples(saved(tmp_path / "s.npz", x=np.zeros((1000, 4), np.float32)), PICTURE)
    assert (len(given.samples), given.total) == (MAX_SAMPLES, 1000)
    assert spread(1000, 3) == [0, 500, 999]


@pytest.mark.parametrize("texts", [np.array([["é", "b"]]), np.array([["é".encode(), b"b"]])], ids=["text", "bytes"])
def test_texts_become_bytes(tmp_path: Path, texts: np.ndarray):
    signature = Signature((TensorSpec("s", "BYTES", (-1, 2)),), ())
    sample = read_samples(saved(tmp_path / "s.npz", s=texts), signature).samples[0]["s"]
    assert sample.dtype == object
    assert sample.tolist() == [["é".encode(), b"b"]]


def test_bfloat16_is_given_as_bits_or_as_float32(tmp_path: Path):
    signature = Signature((TensorSpec("x", "BF16", (-1,)),), ())
    values = np.array([1.5, -2], np.float32)
    one = read_samples(saved(tmp_path / "a.npz", x=values[None]), signature).samples[0]["x"]
    two = read_samples(saved(tmp_path / "b.npz", x=bfloat16_bits(values)[None]), signature).samples[0]["x"]
    assert one.dtype == np.uint16
    assert np.array_equal(one, two)


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"y": np.zeros((2, 4), np.float32)}, r"s\.npz: input 'x' is missing; the model takes 'x'"),
        ({"x": np.zeros((2, 4), np.float32), "y": [1]}, r"s\.npz: input 'y' is unknown"),
        ({"x": np.zeros((2, 4))}, r"s\.npz: input 'x' must be FP32, got float64"),
        ({"x": np.zeros((2, 5), np.float32)}, r"s\.npz: input 'x' must have shape \[-1, 4\], got \[1, 5\]"),
        ({"x": np.zeros(4, np.float32)}, r"input 'x' has 1 axes, the model takes 2, or 3"),
        ({"x": np.zeros((0, 4), np.float32)}, "has no samples"),
        ({"x": np.array(["a", "b"])[:, None]}, "must be FP32"),
    ],
    ids=["missing", "unknown", "dtype", "shape", "rank", "none", "text"],
)
def test_samples_that_do_not_fit_are_named(tmp_path: Path, arrays: dict[str, np.ndarray], words: str):
    with pytest.raises(InvalidInputError, match=words):
        read_samples(saved(tmp_path / "s.npz", **arrays), PICTURE)


def test_samples_that_do_not_pair_up_are_refused(tmp_path: Path):
    path = saved(tmp_path / "s.npz", x=np.zeros((2, 4), np.float32), t=np.zeros(3, np.int64))
    with pytest.raises(InvalidInputError, match="do not pair up"):
        read_samples(path, UNBATCHED)


def test_pickled_samples_are_refused_unopened(tmp_path: Path):
    np.savez(tmp_path / "s.npz", x=np.array([{"a": 1}], object), allow_pickle=True)
    with pytest.raises(InvalidInputError, match="pickled objects"):
        read_samples(tmp_path / "s.npz", PICTURE)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no", b"plain text", b"\x93NUMPY"])
def test_what_is_no_npz_is_refused(tmp_path: Path, content: bytes):
    (tmp_path / "s.npz").write_bytes(content)
    with pytest.raises(InvalidInputError, match="not a readable"):
        read_samples(tmp_path / "s.npz", PICTURE)


def test_a_damaged_npz_is_refused(tmp_path: Path):
    path = saved(tmp_path / "s.npz", x=np.zeros((50, 4), np.float32))
    damaged = bytearray(path.read_bytes())
    damaged[400] ^= 0xFF
    path.write_bytes(damaged)
    with pytest.raises(InvalidInputError, match="not a readable"):
        read_samples(path, PICTURE)


def test_a_bomb_is_refused_before_it_is_inflated(tmp_path: Path):
    path = tmp_path / "s.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", bytes(1000))
    content = bytearray(path.read_bytes())
    directory = content.rindex(b"PK\x01\x02")
    content[directory + 24 : directory + 28] = (MAX_INFLATED + 1).to_bytes(4, "little")
    path.write_bytes(content)
    with pytest.raises(InvalidInputError, match="inflates to 2,000,000,001 bytes"):
        read_samples(path, PICTURE)


def test_a_header_that_claims_too_much_is_refused(tmp_path: Path):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (10**12, 4)})
    with zipfile.ZipFile(tmp_path / "s.npz", "w") as archive:
        archive.writestr("x.npy", header.getvalue())
    with pytest.raises(InvalidInputError, match="cut short"):
        read_samples(tmp_path / "s.npz", PICTURE)


def test_no_samples_at_all(tmp_path: Path):
    with pytest.raises(InvalidInputError, match="no such samples"):
        read_samples(tmp_path / "none.npz", PICTURE)
    with pytest.raises(InvalidInputError, match=r"no \.npz files"):
        read_samples(tmp_path, PICTURE)
