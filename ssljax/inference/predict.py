"""Writes tables of predictions: `predictions.csv`, `predictions.npz` and `predictions.html`."""

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from ssljax.data.sources import Loaded, Source
from ssljax.errors import UsageError
from ssljax.forward import Outputs
from ssljax.inference import sheet
from ssljax.inference.table import Mark, Scores, Table, readable, scores
from ssljax.log import printable
from ssljax.storage import output_directory
from ssljax.trained import Trained

_MANY = 20  # images, of which some would be of other classes
_NO_MARKS: Mapping[str, Mark] = MappingProxyType({})


class Model(NamedTuple):
    """A model for predictions, of a run or an export."""

    run: Callable[[Iterator[np.ndarray]], Iterator[Outputs]]  # batches of images -> outputs
    class_names: Sequence[str]
    batch_size: int  # maximum batch size of uint8 images [n, H, W, C]


class Chunk(NamedTuple):
    """The predictions for some images of a source, in its order."""

    loaded: Loaded
    found: Outputs  # outputs for the readable images


class Summary(NamedTuple):
    """A summary of the predictions for many images."""

    images: int
    problems: dict[str, str]  # name of each unreadable image -> the reason
    per_class: np.ndarray  # [C] number of images predicted as each class
    marked: dict[str, int]  # number of images with each mark
    right: int  # number of correct predictions among images with a known label
    known: int


def of_run(
    trained: Trained,
    source: Source,
    *,
    devices: Sequence[Any] | None = None,
    most: int | None = None,
) -> Model:
    """Returns a run's model for the images of a source.

    Args:
      devices: None: all local devices.
      most: maximum batch size; None: `eval_batch_size` of the run.
    """
    size = trained.batch_size(len(source.names), devices, most)
    return Model(lambda batches: trained.outputs(batches, size, devices), trained.class_names, size)


def predict(model: Model, source: Source) -> Iterator[Chunk]:
    """Yields predictions for all images of a source, in batches, with constant memory."""
    waiting: deque[Loaded] = deque()

    def pixels() -> Iterator[np.ndarray]:
        for loaded in source.batches(model.batch_size):
            waiting.append(loaded)
            yield loaded.images

    for found in model.run(pixels()):
        yield Chunk(waiting.popleft(), found)


def write(
    model: Model,
    source: Source,
    directory: Path,
    *,
    marks: Mapping[str, Mark] = _NO_MARKS,
) -> Summary:
    """Predicts all images and writes the three files into an empty directory.

    The CSV has one row per image. The npz has the same numbers, `probabilities [N, C]` and, if the
    model provides them, `features [N, D]`: NaN for unreadable images.

    Args:
      marks: additional columns, 0 or 1, by name.
    """
    classes, total = model.class_names, len(source.names)
    extremes = sheet.Extremes(len(classes))
    summary = Summary(total, {}, np.zeros(len(classes), int), dict.fromkeys(marks, 0), 0, 0)
    with (
        Table(directory, source.names, classes, marks) as table,
        tqdm(total=total, desc="predicting", unit=" images", disable=None) as bar,
    ):
        for loaded, found in predict(model, source):
            numbers = scores(found)
            marked = {name: mark(numbers, found) for name, mark in marks.items()}
            table.add(loaded, numbers, found, marked)
            extremes.add(loaded, numbers.predicted, numbers.confidence)
            summary = _counted(summary, source, loaded, numbers, marked)
            bar.update(len(loaded.names))
        table.save()
    page = sheet.page(extremes, classes, summary.per_class, summary.problems)
    (directory / "predictions.html").write_text(page, encoding="utf-8")
    return summary


def write_directory(
    model: Model,
    source: Source,
    output: Path,
    named: str,
    *,
    marks: Mapping[str, Mark] = _NO_MARKS,
    overwrite: bool = False,
) -> Summary:
    """Writes the files as `write` does, and creates the directory `output` atomically.

    Args:
      named: the name of the source in messages.

    Raises:
      UsageError: no image could be read.
    """
    with output_directory.replaced(output, overwrite=overwrite) as partial:
        summary = write(model, source, partial, marks=marks)
        if not summary.per_class.sum():
            name, why = next(iter(summary.problems.items()))
            raise UsageError(
                f"{named}: none of {summary.images} images could be read, such as "
                f"{printable(name)}: {why}"
            )
    return summary


def describe(summary: Summary, class_names: Sequence[str]) -> str:
    """Formats the summary as lines of text."""
    counts = sorted(zip(summary.per_class.tolist(), class_names, strict=True), reverse=True)
    text = f"{summary.images} images: " + ", ".join(f"{n} {name}" for n, name in counts[:10])
    if len(counts) > 10:
        text += f", {sum(n for n, _ in counts[10:])} of {len(counts) - 10} other classes"
    if len(counts) > 1 and counts[0][0] == sum(summary.per_class) >= _MANY:
        text += (
            f"\nnote: all of them are predicted as {counts[0][1]}, which a model does that has "
            "learned nothing yet; look at its accuracy"
        )
    if summary.problems:
        name, why = next(iter(summary.problems.items()))
        text += f"\n{len(summary.problems)} could not be read, such as {printable(name)}: {why}"
    if summary.known:
        text += (
            f"\n{summary.right / summary.known:.2%} of {summary.known} with a known label are right"
        )
    return text


def _counted(
    summary: Summary,
    source: Source,
    loaded: Loaded,
    numbers: Scores,
    marked: Mapping[str, np.ndarray],
) -> Summary:
    """Returns the summary with one batch added."""
    known, right = 0, 0
    if source.labels is not None:
        labels = source.labels[loaded.positions]
        known, right = np.sum(labels >= 0), np.sum(labels == numbers.predicted)
    named = {readable(loaded.names[p - loaded.first]): why for p, why in loaded.problems.items()}
    return Summary(
        summary.images,
        summary.problems | named,
        summary.per_class + np.bincount(numbers.predicted, minlength=len(summary.per_class)),
        {name: count + int(np.sum(marked[name])) for name, count in summary.marked.items()},
        summary.right + int(right),
        summary.known + int(known),
    )
