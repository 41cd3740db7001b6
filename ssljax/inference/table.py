"""`predictions.csv` and `predictions.npz`, written in batches, so that memory use does not depend
on the number of images."""

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

_LIKELIEST = 5  # maximum number of classes listed per row


class Scores(NamedTuple):
    """Numbers for each image, `[n]`."""

    predicted: np.ndarray  # int, the likeliest class
    confidence: np.ndarray  # calibrated probability of the likeliest class
    raw_confidence: np.ndarray  # uncalibrated confidence
    margin: np.ndarray  # probability minus that of the second likeliest class
    entropy: np.ndarray  # nats


def scores(found: Outputs) -> Scores:
    """Computes the numbers for some outputs."""
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
    """Returns a file name as encodable text: bytes that are not UTF-8 become `\\xNN`."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


# A function that computes a 0/1 column of the CSV: the marked images, bool `[n]`.
Mark = Callable[[Scores, Outputs], np.ndarray]


class Table:
    """Writes the two files for `names`, with images in that order.

    Args:
      marks: additional columns, by name.
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
        self._columns: dict[str, BinaryIO] = {}  # npz columns, each a separate file until the end

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
        """Writes a batch; numbers, outputs and marks are those of its readable images."""
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
        """Writes `predictions.npz`; `predicted` is -1 for unreadable images."""
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
        """Returns the columns between `file` and `problem`, for the readable images."""
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
        """Appends rows to a column of the npz."""
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
    """Returns an array `[count, …]` with the values at their rows, elsewhere `missing`."""
    if len(values) == count:
        return values.astype(dtype)
    found = np.full((count, *values.shape[1:]), missing, dtype)
    found[rows] = values
    return found
