"""What a data set and its split look like: a table, and a picture of the labelled images."""

from pathlib import PurePosixPath

import numpy as np
from PIL import Image, ImageDraw

from ssljax.data import memory
from ssljax.data.datasets import Dataset
from ssljax.data.splits import Split, fingerprint
from ssljax.data.streaming import StreamedDataset
from ssljax.log import printable

_CELL = 32  # pixels of an image's side on the contact sheet
_NAMED_CELL, _CAPTION = 96, 14  # the same with the file's name, and the height of that
_NAMED = 50  # classes up to which there is room for that
_CLASSES = 1000  # that the contact sheet shows, at most
_ROW = 50  # images of a class on the contact sheet, unless said


def table(data: Dataset | StreamedDataset, split: Split) -> str:
    """Counts a class and in total, sizes, memory and the split's hash."""
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
    """A row for each of the first 1,000 classes: its name, and its first labelled images,
    `per_class` at most. With up to 50 classes, each image has the name of its file, if it has one,
    below it."""
    names = data.class_names[:_CLASSES]
    files = data.names() if data.has_files and len(names) <= _NAMED else []
    cell, height = (_NAMED_CELL, _NAMED_CELL + _CAPTION) if files else (_CELL, _CELL)
    draw_on = ImageDraw.Draw(Image.new("L", (1, 1)))
    margin = 8 + int(max(draw_on.textlength(name) for name in names))
    labels = data.labels[split.labeled]
    longest = min(per_class, int(np.bincount(labels).max()))
    sheet = Image.new("RGB", (margin + longest * cell, len(names) * height), "white")
    draw = ImageDraw.Draw(sheet)
    for c, name in enumerate(names):
        draw.text((4, c * height + cell // 3), name, fill="black")
        chosen = split.labeled[labels == c][:per_class]
        images = [*data.pick(chosen)] if len(chosen) else []
        for i, image in enumerate(images):
            sheet.paste(_thumbnail(image, cell), (margin + i * cell, c * height))
            if files and len(images) == len(chosen):  # none is damaged, so that these are theirs
                caption = _shortened(PurePosixPath(files[chosen[i]]).name, draw, cell - 6)
                draw.text((margin + i * cell, c * height + cell), caption, fill="black")
    return sheet


def _thumbnail(image: np.ndarray, side: int) -> Image.Image:
    picture = Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image)
    small = max(picture.size) <= side
    method = Image.Resampling.NEAREST if small else Image.Resampling.BICUBIC
    return picture.resize((side, side), method)


def _shortened(name: str, draw: ImageDraw.ImageDraw, width: int) -> str:
    """A file name in one line of at most `width` pixels, without its middle where it is longer."""
    name = whole = printable(name)
    kept = len(name)
    while kept > 2 and draw.textlength(name) > width:
        kept -= 1
        name = f"{whole[: -(-kept // 2)]}…{whole[len(whole) - kept // 2 :]}"
    return name
