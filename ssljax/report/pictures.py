"""The pictures of a report on groups of runs, as SVG or PNG bytes."""

import io
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from ssljax import fonts, reliability
from ssljax.reliability import BINS
from ssljax.report import groups as grouping
from ssljax.report import plots
from ssljax.report.groups import Group
from ssljax.report.picture import Picture, drawn, of_run
from ssljax.report.records import Calibration, Predictions
from ssljax.report.runs import Run

_CONFUSION = 200  # most classes of a legible confusion matrix
_DASHED = "Above the dashed line the model is too modest, below it too sure."
_LEAST_SIDE = 64  # pixels; smaller images are enlarged by an integer factor


class Mistake(NamedTuple):
    """A confident mistake."""

    picture: Picture
    true: str
    said: str
    confidence: float  # 0..1
    name: str  # name of the image; "": unknown


def of_group(group: Group, number: int) -> list[Picture]:
    """The pictures of the predictions of a group's runs, and of its learned augmentation."""
    stem = f"group{number}"
    pictures = []
    known = [run.predictions for run in group.runs if run.predictions is not None]
    if known and len({len(p.labels) for p in known}) == 1:
        names = _class_names(group, known)
        pictures += _of_predictions(stem, known, names)
    pictures += _of_calibrations(stem, [c for run in group.runs if (c := run.calibration)])
    run = group.representative()
    text = (
        "Each row is an operation, each column a bin of its magnitude, the least at the left. The "
        "brighter a bin, the better the model recognised images with this distortion: black is 0, "
        f"white 1. Red bins are left out. Run {run.name}."
    )
    title = "What CTAugment has learned"
    pictures += of_run(run, "augment.png", f"{stem}_augment", title, text)
    return pictures


def _of_predictions(stem: str, known: list[Predictions], names: Sequence[str]) -> list[Picture]:
    over = f"{len(known[0].labels):,} {known[0].part} images"
    over += f" of each of {len(known)} runs, taken together" if len(known) > 1 else ""
    pooled = known[0]._replace(
        labels=np.concatenate([p.labels for p in known]),
        predicted=np.concatenate([p.predicted for p in known]),
        confidence=np.concatenate([p.confidence for p in known]),
    )
    pictures = []
    written = fonts.class_names(names)
    numbered = _numbered(names, written)
    if len(names) <= _CONFUSION:
        counts = [plots.confusion_counts(p, len(names)) for p in known]
        figure = plots.confusion(sum(counts, np.zeros_like(counts[0])), written)
        text = f"Each row shows the share in % of a true class's images; {over}.{numbered}"
        pictures.append(drawn(f"{stem}_confusion", "Confusion matrix", figure, text))
    errors = [reliability.expected_calibration_error(p.reliability) for p in known]
    text = (
        f"Expected calibration error, from 0 to 1: ECE {_spread(errors)} ({BINS} bins); "
        f"{over}{_runs(known)}. {_DASHED}"
    )
    figure = plots.reliability(pooled.reliability)
    pictures.append(drawn(f"{stem}_reliability", "Reliability", figure, text))
    present = np.unique(known[0].labels)
    accuracy = np.ma.array([_class_accuracy(p, present) for p in known])
    figure = plots.class_accuracy(accuracy, [written[int(i)] for i in present])
    text = f"{over}.{numbered}" + (" The 20 worst classes." if len(present) > 20 else "")
    if len(known) > 1:
        text += f" Error bars are one standard deviation over the {len(known)} runs (n − 1)."
    if len(known) == 2:
        text += f" {grouping.OF_TWO}"
    pictures.append(drawn(f"{stem}_classes", "Accuracy of each class", figure, text))
    return pictures


def _of_calibrations(stem: str, known: Sequence[Calibration]) -> list[Picture]:
    """The pictures of calibration, and of the error among the most confident images."""
    pictures = []
    pairs = [c.reliability for c in known if c.reliability is not None]
    if pairs:
        over = f"{sum(c.images for c in known):,} {' and '.join(sorted({c.on for c in known}))}"
        text = (
            f"Expected calibration error: ECE {_spread([c.ece_before for c in known])} before, "
            f"{_spread([c.ece_after for c in known])} after the temperature "
            f"{_spread([c.temperature for c in known], 2)}; {over} images"
            f"{_runs(known)}. {_DASHED}"
        )
        before, after = map(reliability.together, zip(*pairs, strict=True))
        figure = plots.calibration(before, after)
        pictures.append(drawn(f"{stem}_calibration", "Calibration", figure, text))
    trusting = [c for c in known if len(c.confidence)]
    if trusting:
        confidence = np.concatenate([c.confidence for c in trusting])
        right = np.concatenate([c.right for c in trusting])
        coverage, risk = reliability.risk_coverage(confidence, right)
        half = risk[(len(risk) - 1) // 2]
        text = (
            f"Error {100 * risk[-1]:.1f} % of all {len(risk):,} validation images (dashed), "
            f"{100 * half:.1f} % of the surest half"
            + (f"; {len(trusting)} runs, taken together." if len(trusting) > 1 else ".")
        )
        figure = plots.risk(coverage, risk)
        pictures.append(drawn(f"{stem}_risk", "Risk against coverage", figure, text))
    return pictures


def _spread(values: Sequence[float], digits: int = 3) -> str:
    """The mean of values, and the standard deviation of several values, as text."""
    found = grouping.spread(values)
    assert found is not None
    std = "" if found.std is None else f" ± {found.std:.{digits}f}"
    return f"{found.mean:.{digits}f}{std}"


def _runs(known: Sequence[object]) -> str:
    """A clause on the runs that `_spread`'s ± summarises; "" for one run."""
    return f"; ± is the standard deviation over {len(known)} runs" if len(known) > 1 else ""


def _numbered(names: Sequence[str], written: Sequence[str]) -> str:
    """A sentence on names that a figure shows as numbers; "" if there are none."""
    pairs = [f"{number} is {name}" for name, number in zip(names, written, strict=True)
             if number != name]  # fmt: skip
    return f" The font of the figure lacks letters: {', '.join(pairs)}." if pairs else ""


def _class_accuracy(says: Predictions, classes: np.ndarray) -> np.ma.MaskedArray:
    """The accuracy of each of some classes, masked for classes without an image in this run."""
    right, count = (
        np.bincount(labels, minlength=classes[-1] + 1)[classes]
        for labels in (says.labels[says.labels == says.predicted], says.labels)
    )
    return np.ma.masked_where(count == 0, right / np.maximum(count, 1))


def _class_names(group: Group, known: Sequence[Predictions]) -> list[str]:
    """The class names, or numbers if `data.json` is missing."""
    names = max((run.class_names for run in group.runs), key=len)
    count = 1 + max(max(int(p.labels.max()), int(p.predicted.max())) for p in known)
    return [names[i] if i < len(names) else str(i) for i in range(max(count, len(names)))]


def mistakes(run: Run) -> list[Mistake]:
    """The most confident wrong predictions of a run."""
    if run.predictions is None:
        return []
    says = run.predictions
    names = says.mistake_names or [""] * len(says.mistakes)

    def name(label: int) -> str:
        return run.class_names[label] if label < len(run.class_names) else str(label)

    return [
        Mistake(
            Picture(f"mistake_{index}", "", "", "png", _png(image)),
            name(int(says.labels[index])),
            name(int(says.predicted[index])),
            float(says.confidence[index]),
            image_name,
        )
        for index, image, image_name in zip(says.mistakes, says.mistake_images, names, strict=True)
    ]


def _png(image: np.ndarray) -> bytes:
    picture = Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image)
    scale = -(-_LEAST_SIDE // min(picture.size))
    picture = picture.resize((picture.width * scale, picture.height * scale), 0)
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()
