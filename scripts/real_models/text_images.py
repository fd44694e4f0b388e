"""PP-OCR's three models: direction, text and place of text lines. Samples: pictures rendered with Pillow.

Preparation follows PP-OCR: BGR, (x / 255 - 0.5) / 0.5; lines are 48 high, pages multiples of 32.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from folder import Tools, member, save_samples

FILES = {
    "cls": "ch_ppocr_mobile_v2.0_cls_infer.onnx",
    "rec": "ch_PP-OCRv4_rec_infer.onnx",
    "det": "ch_PP-OCRv4_det_infer.onnx",
}
LINES, PAGES = 64, 20
HEIGHT, CLS_WIDTH, REC_WIDTH = 48, 192, 320
WORDS = (
    "Invoice Receipt Total Amount Due Harbour Street Customs Declaration Fragile Handle with care Platform "
    "Departure Arrival Gate Boarding Passenger Ticket Single Return Monday Thursday January September Open "
    "Closed Entrance Exit Warning Private Property Keep clear Made in Lisbon Net weight Best before Order "
    "Number Customer Account Balance Payment Received Thank you Please sign here Quantity Price Discount"
)
PIPELINE = f"""\
[input]
kind = "image"
height = {HEIGHT}
width = {CLS_WIDTH}
fit = "pad"           # keep the ratio, fill the right with zeros
layout = "NCHW"
color = "BGR"
mean = [0.5, 0.5, 0.5]
std = [0.5, 0.5, 0.5]
scale = {1 / 255!r}

[output]
kind = "labels"
activation = "none"
"""
Picture = NDArray[np.float32]
Colour = tuple[int, ...]


def fill(kind: str, wheel: Path, folder: Path, tools: Tools) -> None:
    """Model and pictures; the direction model also has labels and a pipeline."""
    (folder / "model.onnx").write_bytes(member(wheel, f"rapidocr_onnxruntime/models/{FILES[kind]}"))
    if kind == "cls":
        (folder / "labels.txt").write_text("0\n180\n")
        (folder / "pipeline.toml").write_text(PIPELINE)
    pictures = {"cls": cls_pictures, "rec": rec_pictures, "det": det_pictures}[kind]
    save_samples(folder, ({"x": picture} for _, picture in pictures()))


def cls_pictures() -> Iterator[tuple[str, Picture]]:
    """Lines that stand upright or upside down in turn, with the right label."""
    random = np.random.default_rng(1)
    for index in range(LINES):
        line = _line(_phrase(random), random)
        yield str(index % 2 * 180), _prepare_line(line.rotate(index % 2 * 180), CLS_WIDTH, CLS_WIDTH)


def rec_pictures() -> Iterator[tuple[str, Picture]]:
    """Lines as wide as their text needs, at least 320, with their text."""
    random = np.random.default_rng(2)
    for _ in range(LINES):
        text = _phrase(random)
        yield text, _prepare_line(_line(text, random), REC_WIDTH, 10**6)


def det_pictures() -> Iterator[tuple[str, Picture]]:
    """Pages of several sizes with lines at places that do not overlap; every other page is tilted."""
    random = np.random.default_rng(3)
    for index in range(PAGES):
        width, height = (int(32 * random.integers(10, 16)) for _ in range(2))
        ground, ink = _colours(random)
        page = Image.new("RGB", (width, height), ground)
        top = int(random.integers(8, 40))
        while top < height - 48:
            size = int(random.integers(14, 34))
            place = (int(random.integers(8, width // 3)), top)
            ImageDraw.Draw(page).text(place, _phrase(random), ink, _font(size))
            top += int(size * random.uniform(1.4, 3))
        angle = index % 2 * random.uniform(-6, 6)
        page = _worn(page.rotate(angle, Image.Resampling.BICUBIC, fillcolor=ground), random)
        yield str(index), _normal(page)


def _phrase(random: np.random.Generator) -> str:
    """One to three words, often with a number."""
    words = list(random.choice(WORDS.split(), int(random.integers(1, 4))))
    if random.random() < 0.5:
        number = random.uniform(1, 99)
        words.append(f"{number:.2f}" if random.random() < 0.5 else f"{int(number * 100)}")
    return " ".join(words)


def _line(text: str, random: np.random.Generator) -> Image.Image:
    """A cut-out line of text: size, colours, margins, tilt, noise and blur vary."""
    font = _font(int(random.integers(20, 44)))
    left, top, right, bottom = font.getbbox(text)
    margin = int(random.integers(3, 9))
    ground, ink = _colours(random)
    canvas = Image.new("RGB", (int(right - left) + 2 * margin, int(bottom - top) + 2 * margin), ground)
    ImageDraw.Draw(canvas).text((margin - left, margin - top), text, ink, font)
    tilt = canvas.rotate(random.uniform(-1.5, 1.5), Image.Resampling.BICUBIC, fillcolor=ground)
    return _worn(tilt, random)


def _font(size: int) -> ImageFont.FreeTypeFont:
    """Pillow's own font: no font file is needed."""
    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont), "Pillow was built without FreeType"
    return font


def _colours(random: np.random.Generator) -> tuple[Colour, Colour]:
    """Ground and ink, far enough apart to be read; one in three is light on dark."""
    light = tuple(int(v) for v in random.integers(170, 256, 3))
    dark = tuple(int(v) for v in random.integers(0, 90, 3))
    return (light, dark) if random.random() < 2 / 3 else (dark, light)


def _worn(picture: Image.Image, random: np.random.Generator) -> Image.Image:
    """Blur and noise of a cheap camera."""
    picture = picture.filter(ImageFilter.GaussianBlur(random.uniform(0, 0.9)))
    noise = random.normal(0, random.uniform(0, 10), (*picture.size[::-1], 3))
    pixels = np.asarray(picture, np.float32) + noise
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def _prepare_line(line: Image.Image, least: int, most: int) -> Picture:
    """48 high, the ratio kept, zeros on the right up to the least width."""
    width = min(-(-HEIGHT * line.width // line.height), most)
    row = _normal(line.resize((width, HEIGHT), Image.Resampling.BILINEAR))
    return np.pad(row, ((0, 0), (0, 0), (0, 0), (0, max(0, least - width))))


def _normal(picture: Image.Image) -> Picture:
    pixels = np.asarray(picture, np.float32)[:, :, ::-1]
    return np.ascontiguousarray(((pixels / 255 - 0.5) / 0.5).transpose(2, 0, 1)[None])
