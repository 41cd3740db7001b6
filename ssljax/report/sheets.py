"""The labelled images of a report's runs: `labelled.png`, cut into one strip per class."""

import io
import json
from collections.abc import Sequence
from typing import NamedTuple

from PIL import Image

from ssljax.log import printable, some
from ssljax.report.groups import Group
from ssljax.report.picture import Picture, file_name, of_run
from ssljax.report.runs import Run

_CELL = 32  # pixels of an image's side, see `data/overview.py`
_RUNS = 10  # most runs of a group that are shown
_STRIPS = 50  # most classes for which images have their names below them
_NAMED = 100  # most classes that are listed under a sheet without strips


class Strip(NamedTuple):
    """The labelled images of a class, side by side."""

    class_name: str
    picture: Picture
    names: Sequence[str]  # names of the images


class Sheet(NamedTuple):
    """The labelled images of a run."""

    run: str
    picture: Picture  # the complete sheet
    strips: Sequence[Strip]  # []: the names are unknown, or there are too many classes
    classes: str  # the classes of the picture's rows


def sheets(group: Group) -> list[Sheet]:
    """The labelled images of some runs."""
    return [sheet for run in group.runs[:_RUNS] for sheet in _of_run(run)]


def _of_run(run: Run) -> list[Sheet]:
    name = file_name(f"labelled_{run.name}")
    return [
        Sheet(run.name, picture, _strips(run, picture), some(run.class_names, _NAMED))
        for picture in of_run(run, "labelled.png", name, run.name, "")
    ]


def _strips(run: Run, whole: Picture) -> list[Strip]:
    """The strips of a sheet; [] if its record of images is missing or does not fit."""
    try:
        with Image.open(io.BytesIO(whole.data)) as picture:
            picture.load()  # the texts can come after the pixels
            found = json.loads(picture.info["images"])
            left, names = int(found["left"]), [[*map(str, row)] for row in found["names"]]
            if not 0 < len(names) <= _STRIPS or picture.height != len(names) * _CELL:
                return []
            if not 0 <= left <= picture.width - _CELL * max(map(len, names)):
                return []
            return [
                Strip(_class_name(run, c), _strip(whole, picture, c, left, len(row)), _shown(row))
                for c, row in enumerate(names)
                if row
            ]
    except (
        OSError, KeyError, TypeError, ValueError, RecursionError, SyntaxError,
        Image.DecompressionBombError,
    ):  # fmt: skip
        return []


def _strip(whole: Picture, sheet: Image.Image, c: int, left: int, count: int) -> Picture:
    top = c * _CELL
    file = io.BytesIO()
    sheet.crop((left, top, left + count * _CELL, top + _CELL)).save(file, "PNG")
    return Picture(f"{whole.name}_{c}", "", "", "png", file.getvalue())


def _shown(names: Sequence[str]) -> list[str]:
    """File names without their folders, as single lines."""
    return [printable(name.rpartition("/")[2]) for name in names]


def _class_name(run: Run, c: int) -> str:
    return run.class_names[c] if c < len(run.class_names) else f"class {c}"
