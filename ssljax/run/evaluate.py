"""Computes exact accuracies of a training state."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

from ssljax.data.datasets import Batches, Dataset
from ssljax.data.labels import are_uneven
from ssljax.data.load import labeled_validation
from ssljax.data.splits import Split
from ssljax.data.streaming import StreamedDataset
from ssljax.run import metrics
from ssljax.run.results import HEADLINES, Scores
from ssljax.training import hosts, parallel
from ssljax.training.parallel import Evaluate
from ssljax.training.state import TrainState, Weights

_MISTAKES = 24  # number of most confident mistakes whose images are kept


class Predictions(NamedTuple):
    """The EMA model's predictions for the evaluated images."""

    part: str  # test, or validation if there are no test images
    labels: np.ndarray  # [T] int32
    predicted: np.ndarray  # [T] int32
    confidence: np.ndarray  # [T] float32, the largest probability
    mistakes: np.ndarray  # [K] int32, indices into the above, most confident first
    mistake_images: np.ndarray  # [K, H, W, C] uint8


class Subject(Protocol):
    """The data to evaluate on: an `Experiment`, or its data alone."""

    @property
    def dataset(self) -> Dataset | StreamedDataset: ...
    @property
    def split(self) -> Split: ...
    @property
    def eval_batch_size(self) -> int: ...


def evaluate_state(
    experiment: Subject,
    evaluate: Evaluate,
    state: TrainState,
    watch: Callable[[Batches], Batches] = iter,
) -> tuple[Scores, Predictions | None]:
    """Computes accuracy (0..1) and cross-entropy (nats) on validation and test images.

    Each image passes through the network once per set of weights. Every process must call this.

    Args:
      evaluate: `experiment.evaluator()`.
      state: the state, replicated.
      watch: passes batches on, or raises to end the evaluation.

    Returns:
      Scores `{test,valid}/{accuracy,loss,class_entropy}_{raw,ema}`, where class_entropy is that of
      the predicted classes in nats; with more than 10 classes also `accuracy_top5`; for EMA weights
      also `balanced_accuracy` and `macro_f1`, see `balanced`. Parts without labelled images are
      omitted. Also returns the predictions for the part of the headline; None if there is nothing
      to evaluate on.
    """
    weights = {kind: state.weights(kind) for kind in ("raw", "ema")}
    data, size = experiment.dataset, experiment.eval_batch_size
    parts = {
        "validation": (data.batches, labeled_validation(data, experiment.split)),
        "test": (data.test_batches, np.arange(len(data.test_labels))),
    }
    scores: Scores = {}
    predictions = None
    for title, (batches, indices) in parts.items():
        if not len(indices):
            continue
        part = HEADLINES[title].partition("/")[0]
        mine = batches(parallel.local_part(indices), parallel.local_batch_size(size))
        in_step = parallel.in_step(mine, len(indices), size, data.image_shape)
        guesses = _Guesses(data.image_shape)
        means = mean_metrics(evaluate, weights, watch(in_step), guesses.add)
        for kind, of_kind in means.items():
            for name, value in of_kind.items():
                if name == "classes":
                    name, value = "class_entropy", metrics.entropy(value)
                scores[f"{part}/{name}_{kind}"] = float(value)
        predictions = guesses.gather(title, len(indices))
        for name, figure in balanced(predictions.labels, predictions.predicted).items():
            scores[f"{part}/{name}_ema"] = figure
    return scores, predictions


def balanced(labels: np.ndarray, predicted: np.ndarray) -> Scores:
    """Computes scores in which each class has equal weight, whatever its number of images; 0..1.

    Classes that do not occur in the labels are ignored.

    Args:
      labels, predicted: int `[T]`.

    Returns:
      `balanced_accuracy`, the mean recall of the classes, and `macro_f1`, their mean F1.
    """
    from sklearn.metrics import precision_recall_fscore_support  # takes a second to import

    _, recall, f1, _ = precision_recall_fscore_support(
        labels, predicted, labels=np.unique(labels), average="macro", zero_division=0
    )
    return {"balanced_accuracy": float(recall), "macro_f1": float(f1)}


def uneven_parts(subject: Subject) -> frozenset[str]:
    """Returns the parts of `HEADLINES` whose classes differ in frequency."""
    data = subject.dataset
    valid = data.labels[labeled_validation(data, subject.split)]
    parts = {"test": data.test_labels, "validation": valid}
    return frozenset(part for part, labels in parts.items() if are_uneven(np.bincount(labels)))


def mean_metrics(
    evaluate: Evaluate,
    weights: Mapping[str, Weights],
    batches: Batches,
    see: Callable[[np.ndarray, np.ndarray, parallel.Evaluated], None] | None = None,
) -> dict[str, dict[str, Any]]:
    """Computes means over exactly the images of the batches, by the weights' name.

    Values are numbers, except for the vector `classes`. `see` receives each batch's images and
    labels, and the EMA weights' outputs.
    """
    sums: dict[str, dict[str, tuple[Any, Any]]] = {kind: {} for kind in weights}
    for images, labels in batches:
        found = evaluate(weights, images, labels)
        for kind, of_kind in found.items():
            for name, part in of_kind.sums.items():
                total, count = sums[kind].get(name, (0, 0))
                sums[kind][name] = total + part.total, count + part.count
        if see is not None:
            see(images, labels, found["ema"])
    return {
        kind: {name: total / count for name, (total, count) in of_kind.items()}
        for kind, of_kind in sums.items()
    }


class _Guesses:
    """Collects this process's predictions and its most confident mistakes, batch by batch."""

    def __init__(self, image_shape: tuple[int, int, int]):
        self._image_shape = image_shape
        self._rows: list[tuple[np.ndarray, ...]] = []  # labels, predicted, confidence per batch
        self._count = 0
        self._mistakes: list[tuple[float, int, np.ndarray]] = []  # -confidence, index, image

    def add(self, images: np.ndarray, labels: np.ndarray, found: parallel.Evaluated) -> None:
        """Records a batch; only images of the most confident mistakes are kept."""
        self._rows.append((labels.astype(np.int32), found.predicted, found.confidence))
        wrong = np.flatnonzero(found.predicted != labels)
        self._mistakes += [
            (-float(found.confidence[i]), self._count + int(i), images[i]) for i in wrong
        ]
        self._mistakes = sorted(self._mistakes, key=lambda mistake: mistake[:2])[:_MISTAKES]
        self._count += len(labels)

    def gather(self, part: str, total: int) -> Predictions:
        """Gathers the predictions of all processes for `total` images, without damaged ones, in the
        round-robin order of the processes."""
        largest = -(-total // jax.process_count())
        columns = [np.concatenate(column) for column in zip(*self._rows, strict=True)]
        columns = [np.pad(column, (0, largest - len(column))) for column in columns]
        there = np.arange(largest) < self._count
        index = np.full(_MISTAKES, -1)
        index[: len(self._mistakes)] = [where for _, where, _ in self._mistakes]
        images = np.zeros((_MISTAKES, *self._image_shape), np.uint8)
        for i, (_, _, image) in enumerate(self._mistakes):
            images[i] = image
        *columns, there, index, images = hosts.gather([*columns, there, index, images])

        taken = there.T.reshape(-1)  # [largest * processes]
        labels, predicted, confidence = (column.T.reshape(-1)[taken] for column in columns)
        process, row = np.nonzero(index >= 0)
        place = np.cumsum(taken)[index[process, row] * len(index) + process] - 1
        order = np.lexsort((place, -confidence[place]))[:_MISTAKES]
        return Predictions(
            part=part,
            labels=labels,
            predicted=predicted,
            confidence=confidence,
            mistakes=place[order].astype(np.int32),
            mistake_images=images[process[order], row[order]],
        )
