"""An overview of a data set and its split: a table, and a picture of the labelled images."""

import json

import numpy as np
from PIL import Image, ImageDraw

from ssljax import fonts
from ssljax.data import memory
from ssljax.data.datasets import Dataset
from ssljax.data.splits import Split, fingerprint
from ssljax.data.streaming import StreamedDataset

_CELL = 32  # pixels of an image's side on the contact sheet
_FONT = 11  # pixels
_CLASSES = 1000  # most classes on the contact sheet
_ROW = 50  # default for the most images per class on the contact sheet


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
    """Draws a row for each of the first 1,000 classes: its name and its first labelled images.

    A row has at most `per_class` images. The picture's text `images` describes the cells as JSON:
    `left`, the pixels before the first image of a row, and `names`, the names of the images of each
    row (`Dataset.names`).
    """
    titles = fonts.class_names(data.class_names[:_CLASSES])
    font = fonts.font(_FONT)
    margin = 8 + int(max(font.getlength(title) for title in titles))
    labels, known = data.labels[split.labeled], data.names()
    longest = min(per_class, int(np.bincount(labels).max()))
    sheet = Image.new("RGB", (margin + longest * _CELL, len(titles) * _CELL), "white")
    draw = ImageDraw.Draw(sheet)
    names: list[list[str]] = []
    for c, title in enumerate(titles):
        draw.text((4, c * _CELL + _CELL // 3), title, fill="black", font=font)
        chosen = split.labeled[labels == c][:per_class]
        images = [*data.pick(chosen)] if len(chosen) else []
        for i, image in enumerate(images):
            sheet.paste(_thumbnail(image), (margin + i * _CELL, c * _CELL))
        # If damaged images were left out, it is unknown which names belong to the others.
        is_whole = len(images) == len(chosen)
        names.append([known[i] if is_whole else "" for i in chosen[: len(images)]])
    sheet.info["images"] = json.dumps({"left": margin, "names": names})
    return sheet


def _thumbnail(image: np.ndarray) -> Image.Image:
    picture = Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image)
    small = max(picture.size) <= _CELL
    method = Image.Resampling.NEAREST if small else Image.Resampling.BICUBIC
    return picture.resize((_CELL, _CELL), method)
