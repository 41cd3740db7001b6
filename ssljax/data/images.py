"""One image: from a file, and to the size that the others have."""

import functools
import io
from pathlib import Path
from typing import IO

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from ssljax.errors import UsageError
from ssljax.log import printable

GREY_MODES = ("1", "L")  # Pillow's modes of one channel without colours
_DEEP_MODES = ("I", "F")  # more than 8 bits a channel; also their variants, such as I;16
# What Pillow recognises and does not decode itself. EPS would run another program.
_NO_IMAGES = ("BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF")

_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_SAYS = (b"eXIf", b"XML:com.adobe.xmp", b"acTL")  # how it is turned, that it moves


@functools.cache
def formats() -> list[str]:
    """Pillow's names of the formats that are read."""
    Image.init()
    return [name for name in Image.OPEN if name not in _NO_IMAGES]


@functools.cache
def extensions() -> frozenset[str]:
    """The ends of names that images have, in lower case, with the dot."""
    read = {*formats(), "MPO"}  # a JPEG with further images
    return frozenset(end for end, name in Image.registered_extensions().items() if name in read)


def fit(image: np.ndarray, size: int) -> np.ndarray:
    """uint8 `[H, W, C]` -> `[size, size, C]`: the largest central square, resized (bicubic)."""
    if image.shape[:2] == (size, size):
        return image
    picture = Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image)
    picture = ImageOps.fit(picture, (size, size), Image.Resampling.BICUBIC)
    return np.asarray(picture).reshape(size, size, -1)


def read(path: Path) -> tuple[np.ndarray, str]:
    """Decodes a file, see `decode`.

    Raises:
      UsageError: the file is missing or cannot be decoded; names it.
    """
    try:
        return decode(io.BytesIO(path.read_bytes()))  # at once: threads wait for each other less
    except (OSError, ValueError) as error:
        raise UsageError(f"image {printable(path)} cannot be read: {error}") from error


def decode(file: IO[bytes]) -> tuple[np.ndarray, str]:
    """Decodes any 8-bit format of Pillow's, turned upright as its EXIF data says.

    Returns:
      uint8 `[H, W, 3]`, and the mode it had in the file ("L", "RGB", "RGBA", …). Transparency is
      dropped; of several frames the first one is read.

    Raises:
      ValueError: it cannot be decoded; says why in one line.
    """
    try:
        with Image.open(file, formats=formats()) as picture:
            mode = picture.mode
            if mode.startswith(_DEEP_MODES):
                raise ValueError(f"its pixels are of mode {mode}; allowed: 8 bits a channel")
            upright = ImageOps.exif_transpose(picture)
            if "transparency" in upright.info:  # which Pillow warns about where it is dropped
                upright = upright.convert("RGBA")
            return np.asarray(upright.convert("RGB")), mode
    except UnidentifiedImageError as error:  # whose text names an object in memory
        raise ValueError("cannot identify its format") from error
    except Exception as error:  # anything can be in a file, and Pillow raises as much
        raise ValueError(" ".join(str(error).split()) or type(error).__name__) from error


def is_plain(encoded: bytes) -> bool:
    """Whether TensorFlow decodes an image to what `decode` gives, but for how it rounds JPEGs.

    That is a JPEG, upright, grey or in colours, or a PNG of 8 bits that nothing is said about.
    """
    if encoded.startswith(_PNG):
        return encoded[24:25] == b"\x08" and not any(mark in encoded for mark in _PNG_SAYS)
    try:
        with Image.open(io.BytesIO(encoded), formats=["JPEG"]) as picture:
            upright = picture.getexif().get(ExifTags.Base.Orientation, 1) == 1
            return upright and picture.mode in ("L", "RGB")
    except Exception:  # another format, or damaged
        return False


def as_bmp(encoded: bytes) -> bytes:
    """What `decode` gives, as a BMP, which TensorFlow reads; b"": it cannot be decoded."""
    try:
        pixels, _ = decode(io.BytesIO(encoded))
    except ValueError:
        return b""
    return bmp(pixels)


def bmp(pixels: np.ndarray) -> bytes:
    """uint8 `[H, W, 3]`, encoded."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "BMP")
    return file.getvalue()
