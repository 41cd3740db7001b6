"""An image of a report, made from a figure or from a run's file."""

import base64
import hashlib
from typing import NamedTuple

from ssljax.drawing import Figure
from ssljax.report import svg
from ssljax.report.runs import Run, within

_PNG = b"\x89PNG\r\n\x1a\n"  # first bytes of PNG files
_LONGEST = 40  # most characters of a run's or a data set's name in a file name


class Picture(NamedTuple):
    """An image for the page, and for a separate file."""

    name: str  # name of the file, without extension
    title: str
    text: str  # a sentence below the image, or ""
    kind: str  # svg or png
    data: bytes
    alone: bytes = b""  # image of the file, with the legend that the page shows once; b"": `data`
    is_percent: bool = False  # whether its values are in 0..100 %

    @property
    def uri(self) -> str:
        """The image as a data URI, so that a page needs no other file."""
        mime = "svg+xml" if self.kind == "svg" else self.kind
        return f"data:image/{mime};base64,{base64.b64encode(self.data).decode()}"

    @property
    def file(self) -> str:
        """The path of the image's file, relative to the page."""
        return f"report_figures/{self.name}.{self.kind}"


def drawn(name: str, title: str, figure: Figure, text: str = "") -> Picture:
    """A figure as a picture."""
    return Picture(name, title, text, "svg", svg.render(figure))


def of_run(run: Run, file: str, name: str, title: str, text: str) -> list[Picture]:
    """A picture from a file in the run directory; [] if there is none."""
    try:
        data = within(run.path, file).read_bytes()
    except (OSError, ValueError):
        return []
    return [Picture(name, title, text, "png", data)] if data.startswith(_PNG) else []


def file_name(text: str) -> str:
    """A text as part of a file name; long texts are their beginning and a hash."""
    name = "".join(c if c.isalnum() or c in "._=+-" else "_" for c in text)
    if len(name) <= _LONGEST:
        return name
    return f"{name[:_LONGEST]}_{hashlib.sha256(text.encode()).hexdigest()[:8]}"
