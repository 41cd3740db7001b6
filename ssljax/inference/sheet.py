"""`predictions.html`: the surest and the least sure images of each class."""

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

_PER_CLASS = 12  # images at each end


class Item(NamedTuple):
    """An image on the page."""

    confidence: float
    name: str
    image: np.ndarray  # [H, W, C] uint8


class Extremes:
    """Of each class, the images with the largest and the smallest confidence seen so far."""

    def __init__(self, classes: int):
        self.surest: list[list[Item]] = [[] for _ in range(classes)]
        self.least_sure: list[list[Item]] = [[] for _ in range(classes)]

    def add(self, loaded: Loaded, predicted: np.ndarray, confidence: np.ndarray) -> None:
        """Notes a batch: predicted classes and confidences `[n]` of its `loaded.images`."""
        for c in np.unique(predicted):
            of_class = np.flatnonzero(predicted == c)
            for ends, sign in ((self.surest[c], -1), (self.least_sure[c], 1)):
                ranks = sign * confidence[of_class]
                if len(ends) == _PER_CLASS:  # most batches hold nothing that belongs here
                    better = ranks < sign * ends[-1].confidence
                    of_class, ranks = of_class[better], ranks[better]
                chosen = of_class[np.argsort(ranks, kind="stable")[:_PER_CLASS]]
                ends += [_item(loaded, i, float(confidence[i])) for i in chosen]
                ends.sort(key=lambda item: sign * item.confidence)
                del ends[_PER_CLASS:]


def _item(loaded: Loaded, i: int, confidence: float) -> Item:
    """The i-th of the images that could be read; its batch is not kept."""
    name = readable(loaded.names[loaded.positions[i] - loaded.first])
    return Item(confidence, name, loaded.images[i].copy())


def page(
    extremes: Extremes,
    classes: Sequence[str],
    per_class: np.ndarray,
    problems: Mapping[str, str],
) -> str:
    """The page as HTML; names and problems are escaped.

    Args:
      per_class: `[C]` how many images were given each class.
      problems: names of images that could not be read, and why.
    """
    template = Path(__file__).with_name("predictions.html").read_text(encoding="utf-8")
    sections = [
        {
            "name": name,
            "count": int(per_class[c]),
            "rows": [
                ("surest", list(map(_shown, extremes.surest[c]))),
                ("least sure", list(map(_shown, extremes.least_sure[c]))),
            ],
        }
        for c, name in enumerate(classes)
    ]
    return (
        Environment(autoescape=True)
        .from_string(template)
        .render(sections=sections, problems=problems, total=int(per_class.sum()) + len(problems))
    )


def _shown(item: Item) -> dict[str, object]:
    image = item.image[..., 0] if item.image.shape[-1] == 1 else item.image
    data = io.BytesIO()
    Image.fromarray(image).save(data, "PNG")
    png = base64.b64encode(data.getvalue()).decode()
    return {"confidence": item.confidence, "name": item.name, "png": png}
