"""The font of pictures: DejaVu Sans, which comes with matplotlib."""

import functools
import importlib.util
from collections.abc import Sequence
from pathlib import Path

from PIL import ImageFont

_FILE = "mpl-data/fonts/ttf/DejaVuSans.ttf"
_NOTHING = "\U0010fffe"  # is no character, so that a font draws its box for it


@functools.cache
def font(size: int) -> ImageFont.FreeTypeFont:
    """The font at a size in pixels; matplotlib itself, which takes a second, is not imported."""
    found = importlib.util.find_spec("matplotlib")
    assert found is not None
    assert found.origin is not None
    return ImageFont.truetype(str(Path(found.origin).parent / _FILE), size)


@functools.cache
def _is_drawn(character: str) -> bool:
    box, drawn = (bytes(font(16).getmask(c)) for c in (_NOTHING, character))
    return drawn != box


def is_drawn(text: str) -> bool:
    """Whether the font has every character of `text`."""
    return all(map(_is_drawn, text))


def class_names(names: Sequence[str]) -> list[str]:
    """The names of classes for a picture: `class 3` in place of one that the font cannot write."""
    return [name if is_drawn(name) else f"class {i}" for i, name in enumerate(names)]


def replaced(text: str) -> str:
    """The text with a question mark for each character that the font does not have."""
    return "".join(c if _is_drawn(c) else "?" for c in text)
