"""Images -> a table of predictions: `predictions.csv`, `predictions.npz` and `predictions.html`."""

import csv
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from ssljax.data.sources import Loaded, Source
from ssljax.inference import calibration, selection, sheet
from ssljax.inference.outputs import Outputs, batch_size, outputs
from ssljax.trained import Trained

_LIKELIEST = 5  # classes that a row names, where there are more


class Chunk(NamedTuple):
    """The predictions for some images of a source, in its order."""

    loaded: Loaded
    found: Outputs  # of the images that could be read


class Options(NamedTuple):
    """How probabilities are made, and which are trusted."""

    temperature: float = 1.0
    trusted_confidence: float | None = None  # None: nothing is said of trust


class Summary(NamedTuple):
    """What a prediction of many images comes to."""

    images: int
    problems: dict[str, str]  # names of images that could not be read, and why
    per_class: np.ndarray  # [C] how many were given each class
    trusted: int
    right: int  # of those whose label is known
    known: int


def predict(
    trained: Trained, source: Source, devices: Sequence[Any] | None = None
) -> Iterator[Chunk]:
    """Predictions for all images of a source, a batch at a time, in constant memory."""
    import jax

    devices = list(devices or jax.devices())
    waiting: deque[Loaded] = deque()

    def pixels() -> Iterator[np.ndarray]:
        for loaded in source.batches(batch_size(devices)):
            waiting.append(loaded)
            yield loaded.images.reshape(-1, *trained.image_shape)

    for found in outputs(trained, pixels(), devices):
        yield Chunk(waiting.popleft(), found)


class Scores(NamedTuple):
    """Numbers of each image, `[n]`."""

    predicted: np.ndarray  # int, the likeliest class
    confidence: np.ndarray  # calibrated probability of it
    raw_confidence: np.ndarray  # the model's
    margin: np.ndarray  # probability above the second class
    entropy: np.ndarray  # nats


def scores(logits: np.ndarray, temperature: float) -> tuple[Scores, np.ndarray]:
    """The numbers, and the calibrated probabilities `[n, C]` float32."""
    probabilities = calibration.softmax(logits, temperature)
    raw = calibration.softmax(logits)
    if not len(logits):
        none = np.zeros(0)
        return Scores(none.astype(int), none, none, none, none), probabilities
    return Scores(
        probabilities.argmax(axis=-1),
        probabilities.max(axis=-1),
        raw.max(axis=-1),
        selection.margins(probabilities),
        selection.entropies(probabilities),
    ), probabilities


def write(
    trained: Trained,
    source: Source,
    directory: Path,
    options: Options,
    *,
    devices: Sequence[Any] | None = None,
) -> Summary:
    """Predicts all images and writes the three files into an empty directory.

    The CSV has a row per image, the npz the same numbers with `features [N, D]` and
    `probabilities [N, C]`: NaN where an image could not be read.
    """
    names = [readable(name) for name in source.names]
    table = _Table(directory, trained.class_names, len(names), options)
    extremes = sheet.Extremes(len(trained.class_names))
    summary = Summary(len(names), {}, np.zeros(len(trained.class_names), int), 0, 0, 0)
    with table, tqdm(total=len(names), desc="predicting", unit=" images", disable=None) as bar:
        for loaded, found in predict(trained, source, devices):
            loaded = loaded._replace(names=[readable(name) for name in loaded.names])
            numbers, probabilities = scores(found.logits, options.temperature)
            table.add(loaded, numbers, probabilities, found.features)
            extremes.add(loaded, numbers.predicted, numbers.confidence)
            summary = _counted(summary, source, loaded, numbers, options)
            bar.update(len(loaded.names))
        table.save(names)
    page = sheet.page(extremes, trained.class_names, summary.per_class, summary.problems)
    (directory / "predictions.html").write_text(page, encoding="utf-8")
    return summary


def _counted(
    summary: Summary, source: Source, loaded: Loaded, numbers: Scores, options: Options
) -> Summary:
    """The summary with a batch more."""
    limit, known, right = options.trusted_confidence, 0, 0
    if source.labels is not None:
        labels = source.labels[loaded.positions]
        known, right = np.sum(labels >= 0), np.sum(labels == numbers.predicted)
    named = {loaded.names[p - loaded.first]: why for p, why in loaded.problems.items()}
    return Summary(
        summary.images,
        summary.problems | named,
        summary.per_class + np.bincount(numbers.predicted, minlength=len(summary.per_class)),
        summary.trusted + (0 if limit is None else int(np.sum(numbers.confidence >= limit))),
        summary.right + int(right),
        summary.known + int(known),
    )


def readable(name: str) -> str:
    """A file name as text that can be encoded: bytes that are no UTF-8 become `\\xNN`."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


class _Table:
    """`predictions.csv` and the arrays of `predictions.npz`, which are on the disk while they are
    filled, so that any number of images needs no more memory."""

    def __init__(self, directory: Path, classes: Sequence[str], images: int, options: Options):
        self._directory, self._classes, self._options = directory, classes, options
        self._images = images
        self._arrays: dict[str, np.ndarray] = {}

    def __enter__(self) -> "_Table":
        path = self._directory / "predictions.csv"
        self._file = path.open("w", newline="", encoding="utf-8")
        self._rows = csv.writer(self._file)
        self._rows.writerow(self._header())
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        for name in self._arrays:
            self._path(name).unlink(missing_ok=True)

    def add(
        self, loaded: Loaded, numbers: Scores, probabilities: np.ndarray, features: np.ndarray
    ) -> None:
        """Writes a batch; the arrays are of its images that could be read."""
        read = {int(position): i for i, position in enumerate(loaded.positions)}
        for position, name in enumerate(loaded.names, loaded.first):
            problem = loaded.problems.get(position, "")
            cells = self._cells(numbers, probabilities, read[position]) if not problem else None
            empty = [""] * (len(self._header()) - 2)
            self._rows.writerow([name, *(empty if cells is None else cells), problem])
        for column, values in numbers._asdict().items():
            self._array(column)[loaded.positions] = values
        self._array("probabilities", len(self._classes))[loaded.positions] = probabilities
        self._array("features", features.shape[-1])[loaded.positions] = features

    def save(self, names: Sequence[str]) -> None:
        """Writes `predictions.npz`; `predicted` is -1 where an image could not be read."""
        arrays = dict(self._arrays)
        arrays["predicted"] = np.nan_to_num(arrays["predicted"], nan=-1).astype(np.int32)
        arrays |= {"files": np.array(names), "class_names": np.array(self._classes)}
        np.savez(self._directory / "predictions.npz", allow_pickle=False, **arrays)

    def _header(self) -> list[str]:
        header = ["file", "class", "confidence", "raw_confidence", "margin", "entropy"]
        if self._options.trusted_confidence is not None:
            header.append("trusted")
        if len(self._classes) > _LIKELIEST:
            ranks = range(1, _LIKELIEST + 1)
            header += [f"{kind}_{rank}" for rank in ranks for kind in ("class", "confidence")]
        return [*header, "problem"]

    def _cells(self, numbers: Scores, probabilities: np.ndarray, i: int) -> list[Any]:
        """What a row says of the i-th image that could be read."""
        values = (numbers.confidence, numbers.raw_confidence, numbers.margin, numbers.entropy)
        cells: list[Any] = [self._classes[numbers.predicted[i]]]
        cells += [f"{value[i]:.6f}" for value in values]
        if self._options.trusted_confidence is not None:
            cells.append(int(numbers.confidence[i] >= self._options.trusted_confidence))
        if len(self._classes) > _LIKELIEST:
            for c in np.argsort(-probabilities[i], kind="stable")[:_LIKELIEST]:
                cells += [self._classes[c], f"{probabilities[i, c]:.6f}"]
        return cells

    def _array(self, name: str, *shape: int) -> np.ndarray:
        """`[images, *shape]` float32, filled with NaN at first."""
        if name not in self._arrays:
            shape = (self._images, *shape)
            self._arrays[name] = np.lib.format.open_memmap(
                self._path(name), "w+", np.float32, shape
            )
            self._arrays[name][:] = np.nan
        return self._arrays[name]

    def _path(self, name: str) -> Path:
        return self._directory / f"{name}.npy.partial"
