"""An overview of a data set and its split: a table, and a picture of the labelled images."""

import numpy as np
from PIL import Image, ImageDraw

from ssljax.data import memory
from ssljax.data.datasets import Dataset
from ssljax.data.splits import Split, fingerprint
from ssljax.data.streaming import StreamedDataset

_CELL = 32  # side of an image on the contact sheet, in pixels
_CLASSES = 1000  # maximum number of classes on the contact sheet
_ROW = 50  # default number of images per class on the contact sheet


def table(data: Dataset | StreamedDataset, split: Split) -> str:
    """Returns a table of counts per class and in total, sizes, memory and the split's hash."""
    columns = {
        "labelled": data.labels[split.labeled],
        "unlabelled": data.labels[split.unlabeled],
        "validation": data.labels[split.valid],
        "test": data.test_labels,
    }
    counts = {
        title: [int(np.sum(labels == c)) for c in [*range(data.num_classes), -1]]
        for title, labels in columns.items()
    }
    rows = [("class", *counts)]
    for c, name in enumerate((*data.class_names, "without label")):
        if c < data.num_classes or any(column[c] for column in counts.values()):
            rows.append((name, *(f"{column[c]:,}" for column in counts.values())))
    rows.append(("total", *(f"{len(labels):,}" for labels in columns.values())))
    width = max(len(name) for name, *_ in rows)
    lines = [f"{name:{width}}" + "".join(f"{x:>12}" for x in cells) for name, *cells in rows]
    return "\n".join([*lines, *_properties(data, split)])


def _properties(data: Dataset | StreamedDataset, split: Split) -> list[str]:
    where = "streamed"
    if isinstance(data, Dataset):
        size = memory.describe(data.images.nbytes), memory.describe(data.test_images.nbytes)
        where = f"{size[0]} on each device, {size[1]} of test images on the host"
    height, width, channels = data.image_shape
    return [
        f"images: uint8 of {height}×{width}×{channels}; {where}",
        f"split hash: {fingerprint(split)}",
    ]


def contact_sheet(
    data: Dataset | StreamedDataset, split: Split, *, per_class: int = _ROW
) -> Image.Image:
    """Draws a row for each of the first 1,000 classes: its name and at most `per_class` labelled
    images."""
    names = data.class_names[:_CLASSES]
    draw_on = ImageDraw.Draw(Image.new("L", (1, 1)))
    margin = 8 + int(max(draw_on.textlength(name) for name in names))
    labels = data.labels[split.labeled]
    longest = min(per_class, int(np.bincount(labels).max()))
    sheet = Image.new("RGB", (margin + longest * _CELL, len(names) * _CELL), "white")
    draw = ImageDraw.Draw(sheet)
    for c, name in enumerate(names):
        draw.text((4, c * _CELL + _CELL // 3), name, fill="black")
        chosen = split.labeled[labels == c][:per_class]
        for i, image in enumerate(data.pick(chosen) if len(chosen) else ()):
            sheet.paste(_thumbnail(image), (margin + i * _CELL, c * _CELL))
    return sheet


def _thumbnail(image: np.ndarray) -> Image.Image:
    picture = Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image)
    small = max(picture.size) <= _CELL
    method = Image.Resampling.NEAREST if small else Image.Resampling.BICUBIC
    return picture.resize((_CELL, _CELL), method)
