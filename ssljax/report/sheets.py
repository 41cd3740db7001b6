"""The labelled images of a report's runs: `labelled.png`, cut into a strip for each class."""

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
_RUNS = 10  # of a group, at most
_STRIPS = 50  # classes, at most, whose images have their names below them
_NAMED = 100  # classes that are named under a sheet in one piece


class Strip(NamedTuple):
    """The labelled images of a class, side by side."""

    class_name: str
    picture: Picture
    names: Sequence[str]  # of the images


class Sheet(NamedTuple):
    """The labelled images of a run."""

    run: str
    picture: Picture  # in one piece
    strips: Sequence[Strip]  # []: the names are not known, or there are too many classes
    classes: str  # what the rows of the picture are


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
    """[] where the picture does not say what it holds, or says what does not fit it."""
    try:
        with Image.open(io.BytesIO(whole.data)) as picture:
            picture.load()  # the texts can stand behind the pixels
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
    """Names of files without their folders, in one line."""
    return [printable(name.rpartition("/")[2]) for name in names]


def _class_name(run: Run, c: int) -> str:
    return run.class_names[c] if c < len(run.class_names) else f"class {c}"
