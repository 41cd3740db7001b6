"""A picture of an augmentation: views of some images, and each operation at several magnitudes."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image, ImageDraw

from ssljax import fonts
from ssljax.augment.augmentation import Augmentation

_WEAK, _STRONG = 3, 6  # number of views of each kind
_LABEL, _TITLE, _GAP = 96, 16, 4  # pixels
_FONT = 9  # size of the values on the images, in pixels
_LEAST_SIDE = 48  # pixels; smaller images are enlarged by an integer factor


def draw(
    key: jax.Array, images: np.ndarray, augmentation: Augmentation, *, magnitude_grid: bool = True
) -> np.ndarray:
    """Draws the sheet: uint8 `[height, width, 3]`.

    The sheet has one row per image: the original, 3 weak and 6 strong views, as before the first
    step. Below is one row per operation: the first image at increasing magnitude, with the value of
    the operation's parameter on each.

    Args:
      images: uint8 `[N, H, W, 1 or 3]`.
      magnitude_grid: whether to draw the operations' rows, which take seconds to compile.
    """
    views = {n: jax.jit(view) for n, view in augmentation.views(augmentation.init()).items()}
    names = ["weak"] * _WEAK + ["strong"] * _STRONG
    keys = jax.random.split(key, (len(names), len(images)))
    columns = [images, *(views[n](k, images) for n, k in zip(names, keys, strict=True))]
    rows = [(f"image {i}", [column[i] for column in columns]) for i in range(len(images))]
    if magnitude_grid:
        steps: Mapping[str, Any] = jax.jit(augmentation.magnitude_grid)(jnp.asarray(images[:1]))
        rows += [(name, list(images)) for name, images in steps.items()]
    values = {name: _values(found) for name, found in augmentation.magnitudes().items()}
    return _tile(rows, title=["original", *names], values=values if magnitude_grid else {})


def _values(magnitudes: Sequence[float]) -> list[str]:
    """The texts of an operation's parameters; [] if they are all the same and so change nothing.

    They have up to three significant digits: `0.1`, `0.28`, `-15`.
    """
    if len({*magnitudes}) < 2:
        return []
    return [f"{magnitude:.3g}" for magnitude in magnitudes]


def _tile(
    rows: Sequence[tuple[str, Sequence[Any]]],
    *,
    title: Sequence[str],
    values: Mapping[str, Sequence[str]],
) -> np.ndarray:
    """Draws rows of a label and images, which all have the same shape.

    Args:
      title: headings of the columns.
      values: a row's label -> one text per image of the row, which is written on the image.
    """
    height, width, channels = rows[0][1][0].shape
    scale = -(-_LEAST_SIDE // min(height, width))
    height, width = height * scale + _GAP, width * scale + _GAP
    columns = max(len(images) for _, images in rows)
    sheet = Image.new("RGB", (_LABEL + columns * width, _TITLE + len(rows) * height), "white")
    canvas = ImageDraw.Draw(sheet)
    for j, name in enumerate(title):
        canvas.text((_LABEL + j * width, 2), name, fill="black")
    for i, (label, images) in enumerate(rows):
        canvas.text((4, _TITLE + i * height + 2), label, fill="black")
        for j, image in enumerate(images):
            pixels = np.asarray(image)
            pixels = np.repeat(pixels, 3 // channels, axis=2)
            pixels = pixels.repeat(scale, axis=0).repeat(scale, axis=1)
            sheet.paste(Image.fromarray(pixels), (_LABEL + j * width, _TITLE + i * height))
        for j, value in enumerate(values.get(label, ())):
            bottom = (_LABEL + j * width, _TITLE + (i + 1) * height - _GAP)
            _write_on(canvas, bottom, value)
    return np.asarray(sheet)


def _write_on(canvas: ImageDraw.ImageDraw, corner: tuple[int, int], text: str) -> None:
    """Writes a text in black on white, with its lower left corner at (x, y)."""
    font = fonts.font(_FONT)
    left, bottom = corner
    right, top = left + int(font.getlength(text)) + 2, bottom - _FONT - 2
    canvas.rectangle((left, top, right, bottom - 1), fill="white")
    canvas.text((left + 1, top), text, fill="black", font=font)
