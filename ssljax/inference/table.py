"""`predictions.csv` and `predictions.npz`, written a batch at a time, so that any number of images
needs no more memory."""

import csv
import zipfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.lib import format as npy

from ssljax.data.sources import Loaded
from ssljax.forward import Outputs
from ssljax.inference import calibration, selection

_LIKELIEST = 5  # classes that a row names, where there are more


class Scores(NamedTuple):
    """Numbers of each image, `[n]`."""

    predicted: np.ndarray  # int, the likeliest class
    confidence: np.ndarray  # calibrated probability of it
    raw_confidence: np.ndarray  # the model's
    margin: np.ndarray  # probability above the second class
    entropy: np.ndarray  # nats


def scores(found: Outputs) -> Scores:
    """The numbers of some outputs."""
    if not len(found.logits):
        none = np.zeros(0, np.float32)
        return Scores(none.astype(int), none, none, none, none)
    return Scores(
        found.probabilities.argmax(axis=-1),
        found.probabilities.max(axis=-1),
        calibration.softmax(found.logits).max(axis=-1),
        selection.margins(found.probabilities),
        selection.entropies(found.probabilities),
    )


def readable(name: str) -> str:
    """A file name as text that can be encoded: bytes that are no UTF-8 become `\\xNN`."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


# A column of the CSV that is 0 or 1: which images are marked, bool `[n]`.
Mark = Callable[[Scores, Outputs], np.ndarray]


class Table:
    """The two files of `names`, images in their order.

    Args:
      marks: further columns, by their names.
    """

    def __init__(
        self,
        directory: Path,
        names: Sequence[str],
        classes: Sequence[str],
        marks: Mapping[str, Mark],
    ):
        self._directory, self._names, self._classes = directory, names, classes
        self._marks = marks
        self._class_names = np.array(classes, object)
        self._open = ExitStack()
        self._columns: dict[str, BinaryIO] = {}  # of the npz, each a file of its own until the end

    def __enter__(self) -> "Table":
        path = self._directory / "predictions.csv"
        self._file = self._open.enter_context(path.open("w", newline="", encoding="utf-8"))
        self._rows = csv.writer(self._file)
        self._header = self._named_columns()
        self._rows.writerow(self._header)
        longest = max(map(len, map(readable, self._names)))
        self._texts = np.dtype(f"<U{longest}")
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def add(
        self,
        loaded: Loaded,
        numbers: Scores,
        found: Outputs,
        marked: Mapping[str, np.ndarray],
    ) -> None:
        """Writes a batch; numbers, outputs and marks are of its images that could be read."""
        names = [readable(name) for name in loaded.names]
        cells = zip(*self._cells(numbers, found.probabilities, marked), strict=True)
        empty = [""] * (len(self._header) - 2)
        problems = [loaded.problems.get(loaded.first + i, "") for i in range(len(names))]
        self._rows.writerows(
            [name, *(empty if problem else next(cells)), problem]
            for name, problem in zip(names, problems, strict=True)
        )
        rows = loaded.positions - loaded.first
        for column, values in numbers._asdict().items():
            dtype, missing = (np.int32, -1) if column == "predicted" else (np.float32, np.nan)
            self._append(column, _filled(values, rows, len(names), dtype, missing))
        for column, values in found._asdict().items():
            if column != "logits" and values is not None:
                self._append(column, _filled(values, rows, len(names), np.float32, np.nan))
        self._append("files", np.array(names, self._texts))

    def save(self) -> None:
        """Writes `predictions.npz`; `predicted` is -1 where an image could not be read."""
        with zipfile.ZipFile(self._directory / "predictions.npz", "w") as archive:
            for name, file in self._columns.items():
                file.close()
                archive.write(file.name, f"{name}.npy")
                Path(file.name).unlink()
            with archive.open("class_names.npy", "w") as member:
                npy.write_array(member, np.array(self._classes), allow_pickle=False)

    def _named_columns(self) -> list[str]:
        header = ["file", "class", "confidence", "raw_confidence", "margin", "entropy"]
        header += self._marks
        if len(self._classes) > _LIKELIEST:
            ranks = range(1, _LIKELIEST + 1)
            header += [f"{kind}_{rank}" for rank in ranks for kind in ("class", "confidence")]
        return [*header, "problem"]

    def _cells(
        self, numbers: Scores, probabilities: np.ndarray, marked: Mapping[str, np.ndarray]
    ) -> list[Sequence[object]]:
        """The columns between `file` and `problem`, for the images that could be read."""
        columns = [self._class_names[numbers.predicted].tolist(), *map(_decimals, numbers[1:])]
        columns += [marked[name].astype(int).tolist() for name in self._marks]
        if len(self._classes) > _LIKELIEST:
            likeliest = np.argsort(-probabilities, axis=-1, kind="stable")[:, :_LIKELIEST]
            confidence = np.take_along_axis(probabilities, likeliest, axis=-1)
            for rank in range(_LIKELIEST):
                columns.append(self._class_names[likeliest[:, rank]].tolist())
                columns.append(_decimals(confidence[:, rank]))
        return columns

    def _append(self, column: str, values: np.ndarray) -> None:
        """Rows of a column of the npz."""
        if column not in self._columns:
            path = self._directory / f"{column}.npy.partial"
            file = self._columns[column] = self._open.enter_context(path.open("wb"))
            npy.write_array_header_1_0(
                file,
                {
                    "descr": npy.dtype_to_descr(values.dtype),
                    "fortran_order": False,
                    "shape": (len(self._names), *values.shape[1:]),
                },
            )
        self._columns[column].write(values.tobytes())


def _decimals(values: np.ndarray) -> list[str]:
    return [f"{value:.6f}" for value in values.tolist()]


def _filled(
    values: np.ndarray, rows: np.ndarray, count: int, dtype: type, missing: float
) -> np.ndarray:
    """`[count, …]`: the values at their rows, elsewhere `missing`."""
    if len(values) == count:
        return values.astype(dtype)
    found = np.full((count, *values.shape[1:]), missing, dtype)
    found[rows] = values
    return found
