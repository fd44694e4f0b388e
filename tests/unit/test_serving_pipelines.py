"""Pipelines by kind: what a person sends becomes the tensors that the graph takes, and back."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sampan.contract.errors import InvalidInputError
from sampan.contract.tensors import Signature, TensorSpec
from sampan.serving.pipelines import check_declaration
from sampan.serving.pipelines.inputs import BytesInput, ImageInput, TextInput
from sampan.serving.pipelines.outputs import LabelsOutput, TensorsOutput, VectorOutput
from sampan.serving.pipelines.pipeline import read_labels
from serving import Ask, Served, picture, post, tokenizer

HERE = Path()


def signature(*inputs: tuple[str, str, tuple[int, ...]], outputs=(("y", "FP32", (-1, 3)),)) -> Signature:
    return Signature(tuple(TensorSpec(*spec) for spec in inputs), tuple(TensorSpec(*spec) for spec in outputs))


BYTES = signature(("x", "INT32", (-1, 8)))
PICTURE = signature(("x", "FP32", (-1, 3, 2, 4)))


# --- inputs ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("item", "tokens"),
    [
        (b"", [256] * 8),
        (b"ab", [97, 98, 256, 256, 256, 256, 97, 98]),
        (b"  abcdef\n", [97, 98, 99, 100, 99, 100, 101, 102]),
        ("é", [195, 169, 256, 256, 256, 256, 195, 169]),
        (bytes(range(200)), [0, 1, 2, 3, 196, 197, 198, 199]),
    ],
)
def test_bytes_are_head_and_tail(item: bytes | str, tokens: list[int]):
    tensors = BytesInput(head=4, tail=4, block=100).build(BYTES, HERE)([item])
    assert tensors["x"].dtype == np.int32
    assert tensors["x"].tolist() == [tokens]


def test_bytes_of_a_tail_of_nothing():
    its = signature(("x", "INT32", (-1, 4)))
    assert BytesInput(head=4, tail=0).build(its, HERE)([b"abcdefgh"])["x"].tolist() == [[97, 98, 99, 100]]


def image(**options: object) -> ImageInput:
    return ImageInput(height=2, width=4, **options)


def file(values: np.ndarray, kind: str = "PNG", **more: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(values.astype(np.uint8)).save(buffer, kind, **more)
    return buffer.getvalue()


RED = np.full((2, 4, 3), (255, 0, 51))


@pytest.mark.parametrize(
    ("options", "pixel"),
    [
        ({}, [1, 0, 0.2]),
        ({"color": "BGR"}, [0.2, 0, 1]),
        ({"scale": 1.0}, [255, 0, 51]),
        ({"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}, [1, -1, -0.6]),
        ({"mean": (1.0,)}, [0, -1, -0.8]),
    ],
)
def test_pixels_are_scaled_in_the_order_of_the_colour(options: dict, pixel: list[float]):
    tensors = image(**options).build(PICTURE, HERE)([file(RED)])
    assert tensors["x"].shape == (1, 3, 2, 4)
    np.testing.assert_allclose(tensors["x"][0, :, 1, 3], pixel, atol=1e-6)


def test_layouts_and_grey():
    nhwc = signature(("x", "FP32", (-1, 2, 4, 3)))
    assert image(layout="NHWC").build(nhwc, HERE)([file(RED), file(RED)])["x"].shape == (2, 2, 4, 3)
    grey = signature(("x", "UINT8", (-1, 1, 2, 4)))
    tensors = image(color="L", scale=1.0).build(grey, HERE)([file(np.full((2, 4), 7))])
    assert tensors["x"].dtype == np.uint8
    assert (tensors["x"] == 7).all()


def test_fits():
    wide = np.zeros((4, 4, 3))
    wide[:, :, 0] = 255
    padded = image(fit="pad").build(PICTURE, HERE)([file(wide)])["x"][0, 0]
    assert padded.tolist() == [[1, 1, 0, 0], [1, 1, 0, 0]]
    for fit in ("stretch", "crop"):
        assert (image(fit=fit).build(PICTURE, HERE)([file(wide)])["x"][0, 0] == 1).all()


def test_a_camera_held_sideways_is_turned():
    upright = np.zeros((2, 4, 3))
    upright[0] = 255
    exif = Image.Exif()
    exif[0x0112] = 3  # turned by 180 degrees
    turned = image().build(PICTURE, HERE)([file(upright, exif=exif.tobytes())])["x"][0, 0]
    assert turned.tolist() == [[0] * 4, [1] * 4]


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "GIF"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_every_file_kind_is_read(kind: str, mode: str):
    assert image().build(PICTURE, HERE)([picture(9, 7, kind, mode)])["x"].shape == (1, 3, 2, 4)


@pytest.mark.parametrize("mode", ["P", "LA", "RGBA", "1", "I;16"])
def test_every_colour_mode_is_read(mode: str):
    buffer = io.BytesIO()
    Image.new(mode, (5, 5)).save(buffer, "PNG")
    assert image().build(PICTURE, HERE)([buffer.getvalue()])["x"].shape == (1, 3, 2, 4)


@pytest.mark.parametrize("blob", [b"", b"GIF89a", picture()[:50], picture(kind="JPEG")[:200], "text"])
def test_what_is_no_picture_is_one_sentence(blob: bytes | str):
    with pytest.raises(InvalidInputError, match="the picture cannot be decoded"):
        image().build(PICTURE, HERE)([blob])


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_picture_of_too_many_pixels_is_refused_before_it_is_unpacked():
    buffer = io.BytesIO()
    Image.new("1", (11_000, 11_000)).save(buffer, "PNG")
    assert len(buffer.getvalue()) < 50_000
    with pytest.raises(InvalidInputError, match="the picture has 121,000,000 pixels, over the limit of"):
        image().build(PICTURE, HERE)([buffer.getvalue()])


def text(folder: Path, *names: str, **options: object) -> dict[str, np.ndarray]:
    tokenizer().save(str(folder / "tokenizer.json"))
    its = signature(*((name, "INT64", (-1, -1)) for name in names))
    return TextInput(**options).build(its, folder)(["red fish", "blue"])


def test_text_is_ids_padded_to_the_longest(tmp_path: Path):
    tensors = text(tmp_path, "input_ids", "attention_mask", "token_type_ids")
    assert tensors["input_ids"].tolist() == [[2, 5], [4, 0]]
    assert tensors["attention_mask"].tolist() == [[1, 1], [1, 0]]
    assert tensors["token_type_ids"].tolist() == [[0, 0], [0, 0]]
    assert text(tmp_path, "input_ids", max_length=1)["input_ids"].tolist() == [[2], [4]]


def test_text_that_is_not_utf8_is_refused(tmp_path: Path):
    tokenizer().save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(InvalidInputError, match="the text is not UTF-8"):
        TextInput().build(signature(("input_ids", "INT64", (-1, -1))), tmp_path)([b"\xff"])


# --- outputs ---------------------------------------------------------------------------------------------------


def labelled(scores: list, labels: list[str] | None, datatype: str = "FP32", **options: object) -> list:
    array = np.array(scores, np.float32)
    its = signature(("x", "FP32", (-1,)), outputs=(("y", datatype, (-1, *array.shape[1:])),))
    return LabelsOutput(**options).build(its, labels)({"y": array}, {})


def test_labels_are_the_best_first():
    (row,) = labelled([[0.1, 0.7, 0.2]], ["a", "b", "c"], top=2)
    assert [one["label"] for one in row] == ["b", "c"]
    assert row[0]["score"] == pytest.approx(0.7)
    assert [one["label"] for one in labelled([[0.1, 0.7]], None)[0]] == ["1", "0"]


@pytest.mark.parametrize(
    ("activation", "expected"), [("none", [1000, -1000]), ("softmax", [1, 0]), ("sigmoid", [1, 0])]
)
def test_activations_of_large_scores(activation: str, expected: list[float]):
    (row,) = labelled([[1000.0, -1000.0]], None, activation=activation)
    assert [one["score"] for one in row] == expected


def test_two_labels_of_one_probability():
    (row,) = labelled([[0.2]], ["no", "yes"])
    assert [(one["label"], round(one["score"], 6)) for one in row] == [("no", 0.8), ("yes", 0.2)]


def test_labels_are_lines_as_the_store_counts_them(tmp_path: Path):
    (tmp_path / "labels.txt").write_text("\ufeffa\r\n\u2028\n\x0c\n", "utf-8")
    assert read_labels(tmp_path / "labels.txt") == ["a", "\u2028", "\x0c"]


@pytest.mark.parametrize("labels", [["a"], ["a", "b", "c", "d"]])
def test_labels_of_another_number_are_refused(labels: list[str]):
    with pytest.raises(InvalidInputError, match=f"{len(labels)} labels, but output 'y' has 3 classes"):
        labelled([[1, 2, 3]], labels)


def test_vectors():
    its = signature(("x", "FP32", (-1,)), outputs=(("y", "FP32", (-1, -1, 2)),))
    values = np.array([[[3, 0], [0, 4], [9, 9]], [[0, 0], [0, 0], [0, 0]]], np.float32)
    mask = {"attention_mask": np.array([[1, 1, 0], [0, 0, 0]])}
    mean = VectorOutput(normalize=False).build(its, None)({"y": values}, mask)
    np.testing.assert_allclose(mean, [[1.5, 2], [0, 0]])
    np.testing.assert_allclose(VectorOutput().build(its, None)({"y": values}, mask), [[0.6, 0.8], [0, 0]])
    np.testing.assert_allclose(VectorOutput(pooling="cls").build(its, None)({"y": values}, {}), [[1, 0], [0, 0]])


def test_tensors_are_one_object_an_item(served: Served):
    outputs = (("n", "FP32", (-1,)), ("s", "BYTES", (-1, 1)), ("b", "BF16", (-1,)))
    its = signature(("x", "FP32", (-1,)), outputs=outputs)
    text = np.array([[b"a"], [b"b"]], object)
    arrays = {"n": np.array([1.5, np.nan], np.float32), "s": text, "b": np.array([0x3F80, 0x4000], np.uint16)}
    from sampan.serving.codecs import json

    results = TensorsOutput().build(its, None)(arrays, {})
    assert json.dumps(results) == b'[{"n":1.5,"s":["a"],"b":1.0},{"n":null,"s":["b"],"b":2.0}]'


# --- declarations ----------------------------------------------------------------------------------------------

ROWS = signature(("x", "FP32", (-1, 8)))


@pytest.mark.parametrize(
    ("declaration", "words"),
    [
        ({}, r"\[input\] needs a kind, one of bytes, image, text"),
        ({"input": {"kind": "sound"}, "output": {"kind": "labels"}}, r"\[input\] needs a kind"),
        ({"input": {"kind": ["bytes"]}, "output": {"kind": "labels"}}, r"\[input\] needs a kind"),
        ({"input": {"kind": "bytes", "head": "4"}, "output": {"kind": "labels"}}, "Expected `int`, got `str`"),
        ({"input": {"kind": "bytes", "heads": 4}, "output": {"kind": "labels"}}, "unknown field `heads`"),
        ({"input": {"kind": "bytes", "head": -4, "tail": 12}, "output": {"kind": "labels"}}, "head"),
        ({"input": {"kind": "bytes", "head": 4, "tail": 4}}, r"\[output\] needs a kind"),
        ({"input": {"kind": "bytes", "head": 4, "tail": 4}, "output": {"kind": "labels", "top": 0}}, "top"),
        ({"input": {"kind": "bytes"}, "output": {"kind": "labels"}}, r"does not take \[items, 2048\] token ids"),
        ({"input": {"kind": "bytes", "head": 4, "tail": 4}, "output": {"kind": "labels"}, "more": {}}, r"\[more\]"),
        ({"input": {"kind": "image", "height": 2, "width": 2}, "output": {"kind": "tensors"}}, "does not take"),
        ({"input": {"kind": "image", "height": 0, "width": 2}, "output": {"kind": "tensors"}}, "height"),
        ({"input": {"kind": "text"}, "output": {"kind": "vector"}}, "tokenizer.json is not among"),
        ({"input": {"kind": "bytes", "head": 4, "tail": 4}, "output": {"kind": "vector"}}, "has rank 2"),
    ],
)  # fmt: skip
def test_a_declaration_that_does_not_fit_says_where(declaration: dict, words: str, tmp_path: Path):
    with pytest.raises(InvalidInputError, match=words):
        check_declaration(declaration, ROWS, tmp_path)


def test_a_tokenizer_that_is_none_is_one_sentence(tmp_path: Path):
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(InvalidInputError, match=r"tokenizer.json is no Hugging Face tokenizer"):
        check_declaration(
            {"input": {"kind": "text"}, "output": {"kind": "vector", "pooling": "none"}},
            signature(("input_ids", "INT64", (-1, -1))),
            tmp_path,
        )


# --- through the API -------------------------------------------------------------------------------------------


def test_one_item_and_many_give_the_same(served: Served):
    for model, item in (("words", "red fish"), ("files", "hello")):
        one = served(post(f"/models/{model}/predict", {"input": item})).json()["output"]
        many = served(post(f"/models/{model}/predict", {"inputs": [item, item]})).json()["outputs"]
        assert many == [one, one]
        assert served(post(f"/models/{model}/predict", {"inputs": []})).json()["outputs"] == []


def test_a_raw_body_and_base64_are_the_same(served: Served):
    import base64

    blob = picture(20, 12)
    raw = served(Ask("POST", "/models/pictures/predict", blob, {"content-type": "image/png"}))
    coded = served(post("/models/pictures/predict", {"input": {"b64": base64.b64encode(blob).decode()}}))
    assert raw.body == coded.body
    kind = {"content-type": "Application/JSON; charset=UTF-8"}
    assert served(Ask("POST", "/models/words/predict", b'{"input": "red"}', kind)).status == 200
