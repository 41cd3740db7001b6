"""What an augmentation does, as one picture: views of some images, and each operation's range."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image, ImageDraw

from ssljax import fonts
from ssljax.augment.augmentation import Augmentation

_WEAK, _STRONG = 3, 6  # views of each kind
_LABEL, _TITLE, _GAP = 96, 16, 4  # pixels
_FONT = 9  # pixels, of the values on the images
_LEAST_SIDE = 48  # smaller images are enlarged by a whole number


def draw(
    key: jax.Array, images: np.ndarray, augmentation: Augmentation, *, magnitude_grid: bool = True
) -> np.ndarray:
    """Draws the sheet: uint8 `[height, width, 3]`.

    One row per image: the original, 3 weak and 6 strong views, as before the first step. Below,
    one row per operation: the first image at increasing magnitude, with the value of the
    operation's parameter on each.

    Args:
      images: uint8 `[N, H, W, 1 or 3]`.
      magnitude_grid: whether it has the operations' rows, which take seconds to compile.
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
    """The texts of an operation's parameters; [] where they are all the same and so change nothing.

    They have up to three digits: `0.1`, `0.28`, `-15`.
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
    """Rows of a label and images of one shape.

    Args:
      title: heads the columns.
      values: by a row's label, a text for each of its images, which is written on it.
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
    """Writes a text in black on white, above and to the right of a corner."""
    font = fonts.font(_FONT)
    left, bottom = corner
    right, top = left + int(font.getlength(text)) + 2, bottom - _FONT - 2
    canvas.rectangle((left, top, right, bottom - 1), fill="white")
    canvas.text((left + 1, top), text, fill="black", font=font)
