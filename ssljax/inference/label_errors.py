"""Finds labels of a run that are probably wrong: `label_errors.csv` and `label_errors.html`.

Probabilities are `[N, C]`, labels `[N]` in 0..C-1.
"""

import csv
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ssljax.data import sources
from ssljax.data.datasets import Dataset
from ssljax.data.load import labeled_validation
from ssljax.data.splits import Split
from ssljax.data.streaming import StreamedDataset
from ssljax.errors import UsageError
from ssljax.inference import sheet
from ssljax.inference.predict import of_run, predict
from ssljax.inference.table import readable
from ssljax.spreadsheet import inert
from ssljax.trained import Trained

_FOLDS = 5
_SHOWN = 96  # number of images on the page


class Found(NamedTuple):
    """Images with labels and predictions, `[N]`; the worst label comes first."""

    numbers: np.ndarray  # numbers of the training images, from 0
    labels: np.ndarray  # the given labels
    probabilities: np.ndarray  # [N, C]
    issues: np.ndarray  # bool, see `issues`
    out_of_fold: np.ndarray  # bool; false: the probabilities are those of the run's model
    valid: np.ndarray  # bool, whether the image is for validation
    problems: dict[str, str]  # name of each unreadable image -> the reason

    @property
    def predicted(self) -> np.ndarray:
        """The likeliest classes."""
        return self.probabilities.argmax(axis=-1)


def find(
    trained: Trained, data: Dataset | StreamedDataset, split: Split, *, seed: int = 0
) -> Found:
    """Compares the labels of a run's labelled and validation images with predictions.

    The model has memorised its labelled images. Therefore predictions are out of fold if the labels
    allow it, see `out_of_fold`; otherwise they are those of the run's model, which has not been
    trained on the validation images.

    Raises:
      UsageError: no labelled image could be read.
    """
    indices = np.union1d(split.labeled, labeled_validation(data, split))
    source = sources.of_images(data, indices)
    chunks = list(predict(of_run(trained, source), source))
    numbers = indices[np.concatenate([loaded.positions for loaded, _ in chunks])]
    problems = {
        readable(loaded.names[position - loaded.first]): why
        for loaded, _ in chunks
        for position, why in loaded.problems.items()
    }
    if not len(numbers):
        raise UsageError(f"none of {len(indices)} images with a label could be read")
    labels = data.labels[numbers]
    probabilities, features = (
        np.concatenate([getattr(x, name) for _, x in chunks])
        for name in ("probabilities", "features")
    )
    crossed = out_of_fold(features, labels, probabilities.shape[1], seed=seed)
    is_crossed = np.isfinite(crossed).all(axis=-1)
    probabilities[is_crossed] = crossed[is_crossed]
    wrong = issues(probabilities, labels)
    order = np.argsort(label_quality(probabilities, labels), kind="stable")
    return Found(
        numbers[order],
        labels[order],
        probabilities[order],
        wrong[order],
        is_crossed[order],
        ~np.isin(numbers[order], split.labeled),
        problems,
    )


def out_of_fold(
    features: np.ndarray, labels: np.ndarray, num_classes: int, *, seed: int = 0
) -> np.ndarray:
    """Predicts each image by a logistic regression on features that was not fitted on it.

    There are five stratified folds; fewer if no class has five images.

    Args:
      features: `[N, D]`.

    Returns:
      Probabilities `[N, C]`; NaN for images of classes with a single image, and for all images if
      fewer than two classes have more.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    found = np.full((len(labels), num_classes), np.nan, np.float32)
    counts = np.bincount(labels, minlength=num_classes)
    classes = np.flatnonzero(counts > 1)
    if len(classes) < 2:
        return found
    usable = np.flatnonzero(counts[labels] > 1)
    folds = StratifiedKFold(int(min(_FOLDS, counts.max())), shuffle=True, random_state=seed)
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        # A class with fewer images than folds still has images in every training fold.
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)
        crossed = cross_val_predict(
            model, features[usable], labels[usable], cv=folds, method="predict_proba"
        )
    found[usable] = 0
    found[np.ix_(usable, classes)] = crossed
    return found


def label_quality(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Returns label quality `[N]` from 0, surely wrong, to 1: cleanlab's normalized margin, which
    compares the given label's probability with the largest other one (Northcutt et al., 2021)."""
    given = np.take_along_axis(probabilities, labels[:, None], axis=-1)
    others = np.array(probabilities)
    np.put_along_axis(others, labels[:, None], -np.inf, axis=-1)
    return (given[:, 0] - others.max(axis=-1) + 1) / 2


def issues(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Returns bool `[N]`: the labels that confident learning (Northcutt et al., 2021) finds wrong.

    A label is wrong if it is neither the prediction nor the likeliest of the classes whose
    probability reaches their threshold, the mean probability among the images with that label.
    """
    usual = np.full(probabilities.shape[1], np.inf)
    for c in np.unique(labels):
        usual[c] = probabilities[labels == c, c].mean()
    confident = np.where(probabilities >= usual, probabilities, -np.inf)
    is_confident = np.isfinite(confident).any(axis=-1)
    contradicted = probabilities.argmax(axis=-1) != labels
    return is_confident & contradicted & (confident.argmax(axis=-1) != labels)


def write(directory: Path, found: Found, data: Dataset | StreamedDataset, *, weights: str) -> None:
    """Writes both files; text in the CSV is safe in spreadsheets, see `spreadsheet.py`.

    Args:
      weights: the model's weights, `ema` or `raw`.
    """
    every = data.names()
    names = [readable(every[number]) for number in found.numbers]
    quality = label_quality(found.probabilities, found.labels)
    own = np.take_along_axis(found.probabilities, found.labels[:, None], axis=-1)[:, 0]
    classes = [inert(name) for name in data.class_names]
    with (directory / "label_errors.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(
            [
                "file", "given_label", "predicted_label", "is_label_issue", "label_quality",
                "self_confidence", "predicted_confidence", "prediction", "part", "number",
            ]
        )  # fmt: skip
        for i, name in enumerate(names):
            rows.writerow(
                [
                    inert(name),
                    classes[found.labels[i]],
                    classes[found.predicted[i]],
                    bool(found.issues[i]),
                    f"{quality[i]:.6f}",
                    f"{own[i]:.6f}",
                    f"{found.probabilities[i].max():.6f}",
                    "out-of-fold" if found.out_of_fold[i] else weights,
                    "validation" if found.valid[i] else "labelled",
                    found.numbers[i],
                ]
            )
    page = _page(found, data, names)
    (directory / "label_errors.html").write_text(page, encoding="utf-8")


def _page(found: Found, data: Dataset | StreamedDataset, names: Sequence[str]) -> str:
    """Returns a page of images whose labels are contradicted, the worst first."""
    contradicted = np.flatnonzero(found.predicted != found.labels)
    figures = []
    for i in contradicted[:_SHOWN]:
        given, said = (data.class_names[c[i]] for c in (found.labels, found.predicted))
        text = f"{given} → {said} {100 * found.probabilities[i].max():.1f} %"
        figures += [sheet.figure(image, names[i], text) for image in data.pick(found.numbers[[i]])]
    return sheet.render(
        "Label errors",
        f"The prediction contradicts the labels of {len(contradicted)} of {len(names)} images, of "
        f"which {int(found.issues.sum())} are probably wrong. Each image has its label → the "
        "predicted class with its probability.",
        [sheet.Section("The worst first", f"{len(figures)} images", [("", figures)])],
        found.problems,
    )
