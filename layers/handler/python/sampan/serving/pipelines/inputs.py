"""Input kinds: `bytes`, `image`, `text`. Each is its options, its extra, and `build`, in that order.

`build` looks at the signature once and returns the function that runs per request. Image decoding and
tokenising are imported when such a pipeline is built.
"""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import msgspec
import numpy as np

from sampan.contract.errors import InvalidInputError
from sampan.contract.manifest import TOKENIZER
from sampan.contract.tensors import DATATYPES, Array, Signature, TensorSpec

Natural = Annotated[int, msgspec.Meta(ge=0)]
Positive = Annotated[int, msgspec.Meta(ge=1)]
Preprocess = Callable[[list[Any]], dict[str, Array]]


MAX_PIXELS = 89_478_485  # from which Pillow warns of a decompression bomb; 256 MB of RGB


class BytesInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Head and tail of a file as token ids [items, head + tail], as file-type classifiers take them.

    Of each end `block` bytes are looked at; `strip` removes white space there first. A short head is padded
    on the right, a short tail on the left, with `padding`. Source: Magika, https://arxiv.org/abs/2409.13768
    (section 3.2), and its open-source client.
    """

    extra: ClassVar[str | None] = None
    head: Natural = 1024
    tail: Natural = 1024
    padding: int = 256
    block: Positive = 4096
    strip: bool = True

    def build(self, signature: Signature, folder: Path) -> Preprocess:
        spec = _only_input(signature)
        if len(spec.shape) != 2 or spec.shape[1] not in (-1, self.head + self.tail):
            raise InvalidInputError(f"input '{spec.name}' does not take [items, {self.head + self.tail}] token ids")
        dtype = DATATYPES[spec.datatype].dtype

        def preprocess(items: list[Any]) -> dict[str, Array]:
            return {spec.name: np.stack([self._tokens(_blob(item)) for item in items]).astype(dtype)}

        return preprocess

    def _tokens(self, blob: bytes) -> Array:
        head, tail = blob[: self.block], blob[-self.block :]
        if self.strip:
            head, tail = head.lstrip(), tail.rstrip()
        tokens = np.full(self.head + self.tail, self.padding, np.int64)
        first = np.frombuffer(head[: self.head], np.uint8)
        last = np.frombuffer(tail[max(0, len(tail) - self.tail) :], np.uint8)
        tokens[: first.size] = first
        tokens[tokens.size - last.size :] = last
        return tokens


class ImageInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A picture file (JPEG, PNG, …) as floats [items, channels, height, width] or [items, height, width, channels].

    A pixel becomes `(value × scale − mean) ÷ std`, per channel in the order of `color`. `fit`: `stretch` to the
    size, `crop` the middle after scaling the shorter side, `pad` right and below with zeros after scaling the
    whole into the size.
    """

    extra: ClassVar[str | None] = "image"
    height: Positive
    width: Positive
    fit: Literal["stretch", "crop", "pad"] = "stretch"
    layout: Literal["NCHW", "NHWC"] = "NCHW"
    color: Literal["RGB", "BGR", "L"] = "RGB"
    scale: float = 1 / 255
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)

    def build(self, signature: Signature, folder: Path) -> Preprocess:
        try:
            from PIL import Image, ImageOps, UnidentifiedImageError
        except ImportError as error:
            raise InvalidInputError("pictures need the extra 'image': pip install 'sampan[image]'") from error
        spec = _only_input(signature)
        channels = 1 if self.color == "L" else 3
        size = (channels, self.height, self.width) if self.layout == "NCHW" else (self.height, self.width, channels)
        if not spec.accepts((max(1, spec.shape[0]) if spec.shape else 1, *size)):
            raise InvalidInputError(f"input '{spec.name}' of shape {list(spec.shape)} does not take {list(size)}")
        dtype = DATATYPES[spec.datatype].dtype

        def preprocess(items: list[Any]) -> dict[str, Array]:
            return {spec.name: np.stack([pixels(_blob(item)) for item in items]).astype(dtype)}

        def pixels(blob: bytes) -> Array:
            try:
                file = Image.open(io.BytesIO(blob))
                _check_pixels(file.width * file.height)
                picture = ImageOps.exif_transpose(file)
                picture = self._fitted(picture.convert("L" if self.color == "L" else "RGB"), Image, ImageOps)
            except Image.DecompressionBombError as error:
                raise InvalidInputError(
                    f"the picture has more than {MAX_PIXELS:,} pixels; send a smaller one"
                ) from error
            except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
                raise InvalidInputError("the picture cannot be decoded; send a whole PNG, JPEG or WebP file") from error
            return self._normalised(np.asarray(picture, np.float32))

        return preprocess

    def _fitted(self, picture: Any, image: Any, ops: Any) -> Any:
        size = (self.width, self.height)
        if self.fit == "crop":
            return ops.fit(picture, size, image.Resampling.BILINEAR)
        if self.fit == "pad":
            ratio = min(self.width / picture.width, self.height / picture.height)
            size = (max(1, round(picture.width * ratio)), max(1, round(picture.height * ratio)))
        return picture.resize(size, image.Resampling.BILINEAR)

    def _normalised(self, values: Array) -> Array:
        values = values[..., np.newaxis] if values.ndim == 2 else values
        values = values[..., ::-1] if self.color == "BGR" else values
        values = (values * np.float32(self.scale) - np.array(self.mean, "f4")) / np.array(self.std, "f4")
        below, right = self.height - values.shape[0], self.width - values.shape[1]
        values = np.pad(values, ((0, below), (0, right), (0, 0)))
        return values.transpose(2, 0, 1) if self.layout == "NCHW" else values


class TextInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Text as token ids [items, tokens], with the mask and segment inputs that the graph has.

    `tokenizer` is a Hugging Face `tokenizer.json` of the version; longer texts are cut to `max_length` tokens,
    shorter ones of a batch padded.
    """

    extra: ClassVar[str | None] = "text"
    tokenizer: str = TOKENIZER
    max_length: Positive = 512

    def build(self, signature: Signature, folder: Path) -> Preprocess:
        try:
            from tokenizers import Tokenizer
        except ImportError as error:
            raise InvalidInputError("text needs the extra 'text': pip install 'sampan[text]'") from error
        path = folder / self.tokenizer
        if not path.is_file():
            raise InvalidInputError(f"the tokenizer {self.tokenizer} is not among the version's files")
        try:
            tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # tokenizers raises bare Exception
            raise InvalidInputError(f"{self.tokenizer} is no Hugging Face tokenizer: {error}") from error
        tokenizer.enable_truncation(self.max_length)
        tokenizer.enable_padding()
        parts = {spec.name: _text_part(spec.name) for spec in signature.inputs}
        dtypes = {spec.name: DATATYPES[spec.datatype].dtype for spec in signature.inputs}

        def preprocess(items: list[Any]) -> dict[str, Array]:
            rows = tokenizer.encode_batch([_string(item) for item in items])
            return {name: np.array([getattr(row, part) for row in rows], dtypes[name]) for name, part in parts.items()}

        return preprocess


INPUT_KINDS: dict[str, type[Any]] = {"bytes": BytesInput, "image": ImageInput, "text": TextInput}
_TEXT_PARTS = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}


def _text_part(name: str) -> str:
    if name not in _TEXT_PARTS:
        raise InvalidInputError(f"a text pipeline feeds {', '.join(_TEXT_PARTS)}; the model also takes '{name}'")
    return _TEXT_PARTS[name]


def _check_pixels(pixels: int) -> None:
    if pixels > MAX_PIXELS:
        raise InvalidInputError(
            f"the picture has {pixels:,} pixels, over the limit of {MAX_PIXELS:,}; send a smaller one"
        )


def _only_input(signature: Signature) -> TensorSpec:
    if len(signature.inputs) != 1:
        raise InvalidInputError(f"this kind feeds one input; the model takes {signature.names()}")
    return signature.inputs[0]


def _blob(item: Any) -> bytes:
    return item.encode() if isinstance(item, str) else bytes(item)


def _string(item: Any) -> str:
    if isinstance(item, str):
        return item
    try:
        return bytes(item).decode()
    except UnicodeDecodeError as error:
        raise InvalidInputError("the text is not UTF-8") from error
