"""Tables of the page, sortable without a script: each row has its position in every order."""

import re
from collections.abc import Sequence
from typing import NamedTuple

_NUMBER = re.compile(r"-?\d[\d,]*(\.\d+)?(e[+-]?\d+)?")
_NARROW, _WIDE = "fit-content(8.5rem)", "minmax(9rem, max-content)"
_REST = "minmax(14rem, 1fr)"


class Cell(NamedTuple):
    """The content of a cell."""

    text: str
    note: str = ""  # a separate line below the text
    href: str = ""  # target of a link on the text
    style: str = ""  # a class of the page's style sheet
    key: float | None = None  # sort key; None: the text


class Column(NamedTuple):
    """The head of a column."""

    title: str
    wraps: bool = False  # whether long text is broken into lines
    is_rest: bool = False  # whether it takes the remaining width


class Row(NamedTuple):
    """A row, and its positions in ascending and descending order of each column."""

    cells: Sequence[Cell]
    up: Sequence[int]
    down: Sequence[int]
    style: str

    @property
    def places(self) -> str:
        """The positions as CSS variables."""
        up = (f"--a{i}:{place}" for i, place in enumerate(self.up))
        down = (f"--d{i}:{place}" for i, place in enumerate(self.down))
        return ";".join([*up, *down])


class HtmlTable(NamedTuple):
    """A table of the page."""

    columns: Sequence[Column]
    rows: Sequence[Row]

    @property
    def widths(self) -> str:
        """The value of CSS's `grid-template-columns`."""
        return " ".join(_REST if c.is_rest else _WIDE if c.wraps else _NARROW for c in self.columns)


def make(
    columns: Sequence[Column], rows: Sequence[Sequence[Cell]], styles: Sequence[str] = ()
) -> HtmlTable:
    """Makes a table.

    Args:
      styles: one class of the page's style sheet per row; (): rows have none.
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
    """The positions from 0 of a column's cells in both orders; empty cells come last."""
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
    """The sort key of a cell: its key, or the number at the beginning of its text."""
    if cell.key is not None:
        return cell.key
    match = _NUMBER.match(cell.text)
    return float(match[0].replace(",", "")) if match else None
