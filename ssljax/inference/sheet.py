"""HTML pages of images, such as each class's most and least confident ones (`predictions.html`)."""

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jinja2 import Environment
from PIL import Image

from ssljax.data.sources import Loaded
from ssljax.inference.table import readable

_PER_CLASS = 12  # images of most and of least confidence


class Item(NamedTuple):
    """An image selected for the page."""

    confidence: float
    name: str
    image: np.ndarray  # [H, W, C] uint8


class Figure(NamedTuple):
    """An image in the form used by the page."""

    name: str
    text: str
    png: str  # base64-encoded


class Section(NamedTuple):
    """A section of a page."""

    name: str
    note: str
    rows: Sequence[tuple[str, Sequence[Figure]]]  # headings and images; empty rows are omitted


class Extremes:
    """The images of each class with the largest and smallest confidence so far."""

    def __init__(self, classes: int):
        self.surest: list[list[Item]] = [[] for _ in range(classes)]
        self.least_sure: list[list[Item]] = [[] for _ in range(classes)]

    def add(self, loaded: Loaded, predicted: np.ndarray, confidence: np.ndarray) -> None:
        """Adds a batch: predicted classes and confidences `[n]` of its `loaded.images`."""
        for c in np.unique(predicted):
            of_class = np.flatnonzero(predicted == c)
            for ends, sign in ((self.surest[c], -1), (self.least_sure[c], 1)):
                ranks, chosen = sign * confidence[of_class], of_class
                if len(ends) == _PER_CLASS:  # most batches have no better image
                    better = ranks < sign * ends[-1].confidence
                    ranks, chosen = ranks[better], of_class[better]
                chosen = chosen[np.argsort(ranks, kind="stable")[:_PER_CLASS]]
                ends += [_item(loaded, i, float(confidence[i])) for i in chosen.tolist()]
                ends.sort(key=lambda item: sign * item.confidence)
                del ends[_PER_CLASS:]


def _item(loaded: Loaded, i: int, confidence: float) -> Item:
    """Copies the i-th readable image, so that its batch can be freed."""
    name = readable(loaded.names[loaded.positions[i] - loaded.first])
    return Item(confidence, name, loaded.images[i].copy())


def page(
    extremes: Extremes,
    classes: Sequence[str],
    per_class: np.ndarray,
    problems: Mapping[str, str],
) -> str:
    """Returns the page as HTML; names and problems are escaped.

    Args:
      per_class: `[C]` number of images predicted as each class.
      problems: name of each unreadable image, and the reason.
    """
    sections = [
        Section(
            name,
            f"{int(per_class[c])} images",
            [
                ("surest", list(map(_shown, extremes.surest[c]))),
                ("least sure", list(map(_shown, extremes.least_sure[c]))),
            ],
        )
        for c, name in enumerate(classes)
    ]
    unread = f"; {len(problems)} could not be read" if problems else ""
    introduction = (
        f"{int(per_class.sum()) + len(problems)} images{unread}. Each class shows the images with "
        "the highest and the lowest confidence."
    )
    return render("Predictions", introduction, sections, problems)


def _shown(item: Item) -> Figure:
    return figure(item.image, item.name, f"{100 * item.confidence:.1f} %")


def figure(image: np.ndarray, name: str, text: str) -> Figure:
    """Returns the figure of an image, uint8 `[H, W, C]`, with its name after a text."""
    data = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(data, "PNG")
    return Figure(name, text, base64.b64encode(data.getvalue()).decode())


def render(
    title: str, introduction: str, sections: Sequence[Section], problems: Mapping[str, str]
) -> str:
    """Returns a self-contained HTML page of images; all text is escaped."""
    template = Path(__file__).with_name("sheet.html").read_text(encoding="utf-8")
    return (
        Environment(autoescape=True)
        .from_string(template)
        .render(title=title, introduction=introduction, sections=sections, problems=problems)
    )
