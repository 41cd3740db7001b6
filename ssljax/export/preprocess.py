"""The conversion of an image to the input of an exported model: `preprocess.json`, and a
description in words and Python for its README. Training and `--mode=predict` do the same.

    {
      "input": {"name": "images", "dtype": "uint8", "shape": [null, 32, 32, 3], "range": [0, 255]},
      "orientation": "exif",       the image is rotated upright by its EXIF data
      "channels": "RGB",           or "grey": one channel of images whose channels are equal
      "alpha": "dropped",
      "bits_per_channel": 8,       images with more are rejected
      "fit": {"crop": "central_square", "share": 1.0, "resize": "bicubic", "antialias": true}
    }

`share` is the crop's side as a fraction of the shorter side of the image.
"""

import textwrap
from pathlib import Path
from typing import Any, NamedTuple

from ssljax.errors import UsageError
from ssljax.storage.files import read_json
from ssljax.trained import Trained

NAME = "preprocess.json"
_DTYPES = ("uint8", "float32")
_SQUARE = {"crop": "central_square", "share": 1.0, "resize": "bicubic", "antialias": True}
_STREAM = {"crop": "central_square", "share": 0.875, "resize": "bicubic", "antialias": False}
_AS_IT_IS = {"crop": "none", "resize": "none"}  # for images that are not square


class Preprocess(NamedTuple):
    """The input that an exported model expects."""

    image_shape: tuple[int, int, int]  # (height, width, channels)
    dtype: str  # type of the input, 0..255: uint8 or float32
    is_streamed: bool  # whether images are cropped as in the evaluation with `config.stream`


def of(trained: Trained, input_dtype: str) -> Preprocess:
    """Returns the input that an export of a run's model expects."""
    return Preprocess(trained.image_shape, input_dtype, trained.is_streamed)


def record(known: Preprocess) -> dict[str, Any]:
    """Returns the content of `preprocess.json`."""
    return {
        "input": {
            "name": "images",
            "dtype": known.dtype,
            "shape": [None, *known.image_shape],
            "range": [0, 255],
        },
        "orientation": "exif",
        "channels": _channels(known),
        "alpha": "dropped",
        "bits_per_channel": 8,
        "fit": _fit(known),
    }


def read(directory: Path) -> Preprocess:
    """Reads the `preprocess.json` of an export.

    Raises:
      UsageError: it is missing or damaged, or needs steps that this version does not support.
    """
    path = directory / NAME
    found = read_json(path, input=dict, fit=dict)
    shape, dtype = found["input"].get("shape"), found["input"].get("dtype")
    sizes = shape[1:] if isinstance(shape, list) else []
    if len(sizes) != 3 or not all(isinstance(x, int) and x > 0 for x in sizes):
        raise UsageError(
            f"{path}: input.shape is {shape}; allowed: [null, height, width, channels]"
        )
    if dtype not in _DTYPES:
        raise UsageError(f"{path}: input.dtype is {dtype}; allowed: {' or '.join(_DTYPES)}")
    known = Preprocess((sizes[0], sizes[1], sizes[2]), dtype, found["fit"] == _STREAM)
    for field, expected in record(known).items():
        if found.get(field) != expected:
            raise UsageError(f"{path}: {field} is {found.get(field)}; allowed: {expected}")
    return known


def _channels(known: Preprocess) -> str:
    return "grey" if known.image_shape[-1] == 1 else "RGB"


def _fit(known: Preprocess) -> dict[str, Any]:
    if known.is_streamed:
        return _STREAM
    return _SQUARE if known.image_shape[0] == known.image_shape[1] else _AS_IT_IS


def section(known: Preprocess) -> str:
    """Returns the README's section: a description in words, and `lines`."""
    height, width, channels = known.image_shape
    if known.is_streamed:
        fit = (
            f"The central square of 7/8 of the shorter side is resized to {height}×{width} by "
            "TensorFlow: bicubic, without antialiasing. TensorFlow also decodes upright JPEGs, as "
            "Pillow rounds these differently."
        )
    elif _fit(known) is _SQUARE:
        fit = f"The largest central square is resized to {height}×{width} by Pillow, bicubic."
    else:
        fit = f"Images have {height}×{width} pixels; others are rejected."
    colours = "Palettes, grey and CMYK become RGB."
    if channels == 1:
        colours = "All channels must be equal, and one of them is used."
    words = (
        "An image is rotated upright by its EXIF data. Only the first of several frames is used, "
        "and more than 8 bits per channel are rejected. Transparency is dropped, and the colours "
        f"below it are used. {colours} {fit} `{NAME}` describes this for programs; in Python, it "
        "is:"
    )
    code = textwrap.indent(lines(known), "    ")
    return f"{textwrap.fill(words, 100)}\n\n{code}"


def lines(known: Preprocess) -> str:
    """Returns Python code of a function `read(path)` that returns an image `[H, W, C]`."""
    height, width, channels = known.image_shape
    parts = [_PLAIN if known.is_streamed else "", _UPRIGHT, _GREY if channels == 1 else ""]
    if known.is_streamed:
        parts.append(_CROPPED)
    else:
        parts.append(_RESIZED if _fit(known) is _SQUARE else _OF_SIZE)
    values = {
        "height": height,
        "width": width,
        "channel": "[..., :1]" if channels == 1 else "",
        "cast": "" if known.dtype == "uint8" else f".astype(np.{known.dtype})",
    }
    tensorflow = "import tensorflow as tf\n" if known.is_streamed else ""
    return f"import numpy as np\n{tensorflow}{_OPENED}" + "".join(parts).format(**values)


_OPENED = """\
from PIL import Image, ImageOps


def read(path):
    with Image.open(path) as picture:
"""
_PLAIN = """\
        is_upright = picture.getexif().get(0x0112, 1) == 1
        is_jpeg = picture.format in ("JPEG", "MPO") and picture.mode in ("L", "RGB")
"""
_UPRIGHT = """\
        if picture.mode.startswith(("I", "F")):
            raise ValueError(f"{{path}} has more than 8 bits per channel")
        picture = ImageOps.exif_transpose(picture)
        if "transparency" in picture.info:
            picture = picture.convert("RGBA")
        picture = picture.convert("RGB")
"""
_GREY = """\
    pixels = np.asarray(picture)
    if (pixels != pixels[..., :1]).any():
        raise ValueError(f"{{path}} has colours")
"""
_RESIZED = """\
    picture = ImageOps.fit(picture, ({width}, {height}), Image.Resampling.BICUBIC)
    return np.asarray(picture){channel}{cast}
"""
_OF_SIZE = """\
    if picture.size != ({width}, {height}):
        raise ValueError(f"{{path}} has {{picture.size}} pixels")
    return np.asarray(picture){channel}{cast}
"""
_CROPPED = """\
    side = max(min(picture.size) * 7 // 8, 1)
    left, top = ((length - side + 1) // 2 for length in picture.size)
    if is_jpeg and is_upright:
        with open(path, "rb") as file:
            crop = [top, left, side, side]
            pixels = tf.image.decode_and_crop_jpeg(file.read(), crop, channels=3)
    else:
        pixels = np.asarray(picture)[top : top + side, left : left + side]
    pixels = tf.image.resize(pixels, [{height}, {width}], method="bicubic")
    return tf.saturate_cast(pixels, tf.uint8).numpy(){cast}
"""
