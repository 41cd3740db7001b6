"""Reading of single images from files, and resizing to a common size."""

import functools
import io
from pathlib import Path
from typing import IO

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from ssljax.errors import UsageError
from ssljax.log import printable

GREY_MODES = ("1", "L")  # Pillow's modes with one channel and no palette
_DEEP_MODES = ("I", "F")  # more than 8 bits per channel; variants such as I;16, too
# Formats that Pillow recognises but does not decode itself. EPS would run an external program.
_NO_IMAGES = ("BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF")

_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_SAYS = (b"eXIf", b"XML:com.adobe.xmp", b"acTL")  # chunks for orientation and animation


@functools.cache
def formats() -> list[str]:
    """Returns Pillow's names of the supported formats."""
    Image.init()
    return [name for name in Image.OPEN if name not in _NO_IMAGES]


@functools.cache
def extensions() -> frozenset[str]:
    """Returns the file name extensions of images, in lower case, with the dot."""
    read = {*formats(), "MPO"}  # MPO is a JPEG with further images
    return frozenset(end for end, name in Image.registered_extensions().items() if name in read)


def fit(image: np.ndarray, size: int) -> np.ndarray:
    """Returns the largest central square of uint8 `[H, W, C]`, resized (bicubic) to `size`."""
    if image.shape[:2] == (size, size):
        return image
    picture = Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image)
    picture = ImageOps.fit(picture, (size, size), Image.Resampling.BICUBIC)
    return np.asarray(picture).reshape(size, size, -1)


def read(path: Path) -> tuple[np.ndarray, str]:
    """Reads and decodes a file, see `decode`.

    Raises:
      UsageError: the file is missing or cannot be decoded; the message names it.
    """
    try:
        return decode(io.BytesIO(path.read_bytes()))  # in one read, so that threads wait less
    except (OSError, ValueError) as error:
        raise UsageError(f"image {printable(path)} cannot be read: {error}") from error


def decode(file: IO[bytes]) -> tuple[np.ndarray, str]:
    """Decodes any 8-bit format that Pillow reads, rotated upright by its EXIF data.

    Returns:
      uint8 `[H, W, 3]`, and the mode in the file ("L", "RGB", "RGBA", …). Transparency is dropped;
      only the first of several frames is read.

    Raises:
      ValueError: the image cannot be decoded; the message gives the reason in one line.
    """
    try:
        with Image.open(file, formats=formats()) as picture:
            mode = picture.mode
            if mode.startswith(_DEEP_MODES):
                raise ValueError(f"its pixels are of mode {mode}; allowed: 8 bits per channel")
            upright = ImageOps.exif_transpose(picture)
            if "transparency" in upright.info:  # Pillow warns if it is dropped directly
                upright = upright.convert("RGBA")
            return np.asarray(upright.convert("RGB")), mode
    except UnidentifiedImageError as error:  # its text contains an object's memory address
        raise ValueError("cannot identify its format") from error
    except Exception as error:  # Pillow raises many types for untrusted files
        raise ValueError(" ".join(str(error).split()) or type(error).__name__) from error


def is_plain(encoded: bytes) -> bool:
    """Whether TensorFlow decodes an image like `decode`, up to JPEG rounding.

    That is the case for an upright JPEG, grey or in colour, or an 8-bit PNG without the chunks
    above.
    """
    if encoded.startswith(_PNG):
        return encoded[24:25] == b"\x08" and not any(mark in encoded for mark in _PNG_SAYS)
    try:
        with Image.open(io.BytesIO(encoded), formats=["JPEG"]) as picture:
            upright = picture.getexif().get(ExifTags.Base.Orientation, 1) == 1
            return upright and picture.mode in ("L", "RGB")
    except Exception:  # another or a damaged format
        return False


def as_bmp(encoded: bytes) -> bytes:
    """Returns the result of `decode` as a BMP for TensorFlow; b"": it cannot be decoded."""
    try:
        pixels, _ = decode(io.BytesIO(encoded))
    except ValueError:
        return b""
    return bmp(pixels)


def bmp(pixels: np.ndarray) -> bytes:
    """Encodes uint8 `[H, W, 3]` as a BMP."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "BMP")
    return file.getvalue()
