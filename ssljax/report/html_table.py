"""Tables of the page, which sort without a script: each row knows its place in every order."""

import re
from collections.abc import Sequence
from typing import NamedTuple

_NUMBER = re.compile(r"-?\d[\d,]*(\.\d+)?(e[+-]?\d+)?")
_NARROW, _WIDE = "fit-content(8.5rem)", "minmax(9rem, max-content)"
_REST = "minmax(14rem, 1fr)"


class Cell(NamedTuple):
    """What a cell shows."""

    text: str
    note: str = ""  # in a line of its own below it
    href: str = ""  # an address that its text leads to
    style: str = ""  # a class of the page's style sheet
    key: float | None = None  # that it is sorted by; None: its text


class Column(NamedTuple):
    """The head of a column."""

    title: str
    wraps: bool = False  # whether its text is broken into lines
    is_rest: bool = False  # whether it has the width that others leave


class Row(NamedTuple):
    """A row, and its place in ascending and in descending order of each column."""

    cells: Sequence[Cell]
    up: Sequence[int]
    down: Sequence[int]
    style: str

    @property
    def places(self) -> str:
        """The places as a style sheet's variables."""
        up = (f"--a{i}:{place}" for i, place in enumerate(self.up))
        down = (f"--d{i}:{place}" for i, place in enumerate(self.down))
        return ";".join([*up, *down])


class HtmlTable(NamedTuple):
    """A table of the page."""

    columns: Sequence[Column]
    rows: Sequence[Row]

    @property
    def widths(self) -> str:
        """`grid-template-columns`."""
        return " ".join(_REST if c.is_rest else _WIDE if c.wraps else _NARROW for c in self.columns)


def make(
    columns: Sequence[Column], rows: Sequence[Sequence[Cell]], styles: Sequence[str] = ()
) -> HtmlTable:
    """A table.

    Args:
      styles: a class of the page's style sheet for each row; (): none has one.
    """
    orders = [_places([row[i] for row in rows]) for i in range(len(columns))]
    return HtmlTable(
        columns,
        [
            Row(
                row,
                [up[r] for up, _ in orders],
                [down[r] for _, down in orders],
                styles[r] if styles else "",
            )
            for r, row in enumerate(rows)
        ],
    )


def _places(cells: Sequence[Cell]) -> tuple[list[int], list[int]]:
    """Places from 0 of the cells of a column, ascending and descending; empty ones come last."""
    numbers = [_number(cell) for cell in cells]
    filled = [i for i, cell in enumerate(cells) if cell.text]
    empty = [i for i, cell in enumerate(cells) if not cell.text]
    if all(numbers[i] is not None for i in filled):
        filled.sort(key=lambda i: numbers[i] or 0.0)
    else:
        filled.sort(key=lambda i: cells[i].text.casefold())
    return _inverse(filled + empty), _inverse(filled[::-1] + empty)


def _inverse(order: Sequence[int]) -> list[int]:
    places = [0] * len(order)
    for place, index in enumerate(order):
        places[index] = place
    return places


def _number(cell: Cell) -> float | None:
    """What a cell is sorted by: its key, or the number that its text begins with."""
    if cell.key is not None:
        return cell.key
    match = _NUMBER.match(cell.text)
    return float(match[0].replace(",", "")) if match else None
