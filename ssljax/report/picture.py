"""An image of a report, and how figures become one."""

import base64
import hashlib
from typing import NamedTuple

from ssljax.drawing import Figure
from ssljax.report import svg
from ssljax.report.runs import Run, within

_PNG = b"\x89PNG\r\n\x1a\n"  # how its files begin
_LONGEST = 40  # characters of a file's name that are a run's or a data set's


class Picture(NamedTuple):
    """An image for the page, and for a file of its own."""

    name: str  # of the file, without what follows the dot
    title: str
    text: str  # a sentence under it, or nothing
    kind: str  # svg or png
    data: bytes
    alone: bytes = b""  # for the file, with the legend that the page shows once; b"": `data`
    is_percent: bool = False  # whether its values are from 0 to 100 %

    @property
    def uri(self) -> str:
        """The image itself as an address, so that a page needs no other file."""
        mime = "svg+xml" if self.kind == "svg" else self.kind
        return f"data:image/{mime};base64,{base64.b64encode(self.data).decode()}"

    @property
    def file(self) -> str:
        """Where the report saves it, relative to the page."""
        return f"report_figures/{self.name}.{self.kind}"


def drawn(name: str, title: str, figure: Figure, text: str = "") -> Picture:
    """A figure as a picture."""
    return Picture(name, title, text, "svg", svg.render(figure))


def of_run(run: Run, file: str, name: str, title: str, text: str) -> list[Picture]:
    """A picture that the run itself has drawn, if it has."""
    try:
        data = within(run.path, file).read_bytes()
    except (OSError, ValueError):
        return []
    return [Picture(name, title, text, "png", data)] if data.startswith(_PNG) else []


def file_name(text: str) -> str:
    """A part of a file's name; where the text is long, its beginning and a hash."""
    name = "".join(c if c.isalnum() or c in "._=+-" else "_" for c in text)
    if len(name) <= _LONGEST:
        return name
    return f"{name[:_LONGEST]}_{hashlib.sha256(text.encode()).hexdigest()[:8]}"
