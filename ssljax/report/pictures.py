"""The pictures of a report: which there are of these runs, as SVG or PNG bytes."""

import base64
import hashlib
import io
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from ssljax import reliability
from ssljax.drawing import Figure, mpl
from ssljax.reliability import BINS
from ssljax.report import groups as grouping
from ssljax.report import plots
from ssljax.report.groups import Group
from ssljax.report.records import Calibration, Predictions
from ssljax.report.runs import Run, within
from ssljax.run import results

_CONFUSION = 200  # classes, at most, of a confusion matrix that can be read
_SHEETS = 10  # runs of a group whose labelled images are shown
_PNG = b"\x89PNG\r\n\x1a\n"  # how its files begin
_LONGEST = 40  # characters of a file's name that are a run's or a data set's
_DASHED = "Above the dashed line the model is too modest."
_LEAST_SIDE = 64  # smaller images are enlarged by a whole number, pixels


class Picture(NamedTuple):
    """An image for the page, and for a file of its own."""

    name: str  # of the file, without what follows the dot
    title: str
    text: str  # a sentence under it, or nothing
    kind: str  # svg or png
    data: bytes

    @property
    def uri(self) -> str:
        """The image itself as an address, so that a page needs no other file."""
        mime = "svg+xml" if self.kind == "svg" else self.kind
        return f"data:image/{mime};base64,{base64.b64encode(self.data).decode()}"


class Mistake(NamedTuple):
    """A confident mistake."""

    picture: Picture
    true: str
    said: str
    confidence: float  # 0..1
    name: str  # of the image; "": it is not known


def _svg(name: str, title: str, figure: Figure, text: str = "") -> Picture:
    file = io.BytesIO()
    with mpl.rc_context(plots.STYLE), warnings.catch_warnings():
        # A class may have a name that the font has no letters for; the page itself shows it.
        warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)
        figure.savefig(file, format="svg", metadata={"Date": None})
    return Picture(name, title, text, "svg", file.getvalue())


def _number(key: str) -> Callable[[dict[str, Any]], float | None]:
    return lambda row: row.get(key)


def _error(key: str) -> Callable[[dict[str, Any]], float | None]:
    def value(row: dict[str, Any]) -> float | None:
        return None if row.get(key) is None else 100 * (1 - row[key])

    return value


_CURVES = (
    ("test_error", "Test error", "error %", _error(results.HEADLINES["test"])),
    ("validation_error", "Validation error", "error %", _error(results.HEADLINES["validation"])),
    ("mask_rate", "Mask rate: unlabelled images that count", "share", _number("guess/mask_rate")),
    ("pseudo_label_accuracy", "Accuracy of all pseudo-labels", "share", _number("guess/accuracy")),
    (
        "pseudo_label_accuracy_masked",
        "Accuracy of the pseudo-labels that count",
        "share",
        _number("guess/accuracy_masked"),
    ),
    ("foreign", "Unlabelled images judged to be of no class", "share", _number("foreign")),
    ("loss", "Training loss", "nats", _number("loss/total")),
)


def curves(groups: Sequence[Group]) -> dict[str, list[Picture]]:
    """The curves over the steps, by data set and number of labels."""
    of_data: dict[str, list[Group]] = {}
    for group in groups:
        labels = "" if group.labels is None else f", {group.labels:,} labels"
        of_data.setdefault(group.data_set + labels, []).append(group)
    pictures: dict[str, list[Picture]] = {}
    for data, members in of_data.items():
        stem = _file_name(f"{members[0].data_set}_{members[0].labels}")
        figures = [
            (f"{stem}_{name}", title, plots.curve(members, value, ylabel=ylabel))
            for name, title, ylabel, value in _CURVES
        ]
        pictures[data] = [_svg(name, title, f) for name, title, f in figures if f is not None]
    return pictures


def of_group(group: Group, number: int) -> list[Picture]:
    """What the predictions of a group's runs say, and what its augmentation has learned."""
    stem = f"group{number}"
    pictures = []
    known = [run.predictions for run in group.runs if run.predictions is not None]
    if known and len({len(p.labels) for p in known}) == 1:
        names = _class_names(group, known)
        pictures += _of_predictions(stem, known, names)
    pictures += _of_calibrations(stem, [c for run in group.runs if (c := run.calibration)])
    run = group.representative()
    pictures += _file(run, "augment.png", f"{stem}_augment", "What CTAugment has learned",
                      "One row per operation, one column per bin of its magnitude: black is 0, "
                      f"white 1; red bins are left out. Run {run.name}.")  # fmt: skip
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
    if len(names) <= _CONFUSION:
        counts = [plots.confusion_counts(p, len(names)) for p in known]
        figure = plots.confusion(sum(counts, np.zeros_like(counts[0])), names)
        text = f"Share in % of a true class's images; {over}."
        pictures.append(_svg(f"{stem}_confusion", "Confusion matrix", figure, text))
    errors = [reliability.expected_calibration_error(p.reliability) for p in known]
    text = f"ECE {_spread(errors)} ({BINS} bins); {over}. {_DASHED}"
    figure = plots.reliability(pooled.reliability)
    pictures.append(_svg(f"{stem}_reliability", "Reliability", figure, text))
    present = np.unique(known[0].labels)
    accuracy = np.ma.array([_class_accuracy(p, present) for p in known])
    figure = plots.class_accuracy(accuracy, [names[int(i)] for i in present])
    worst = " The 20 worst classes." if len(present) > 20 else ""
    pictures.append(_svg(f"{stem}_classes", "Accuracy of each class", figure, f"{over}.{worst}"))
    return pictures


def _of_calibrations(stem: str, known: Sequence[Calibration]) -> list[Picture]:
    """What the temperature does, and which error remains among the surest images."""
    pictures = []
    pairs = [c.reliability for c in known if c.reliability is not None]
    if pairs:
        over = f"{sum(c.images for c in known):,} {' and '.join(sorted({c.on for c in known}))}"
        text = (
            f"ECE {_spread([c.ece_before for c in known])} before, "
            f"{_spread([c.ece_after for c in known])} after the temperature "
            f"{_spread([c.temperature for c in known], 2)}; {over} images. {_DASHED}"
        )
        before, after = map(reliability.together, zip(*pairs, strict=True))
        figure = plots.calibration(before, after)
        pictures.append(_svg(f"{stem}_calibration", "Calibration", figure, text))
    trusting = [c for c in known if len(c.confidence)]
    if trusting:
        confidence = np.concatenate([c.confidence for c in trusting])
        right = np.concatenate([c.right for c in trusting])
        coverage, risk = reliability.risk_coverage(confidence, right)
        half = risk[(len(risk) - 1) // 2]
        text = (
            f"Error {100 * risk[-1]:.1f} % of all {len(risk):,} validation images (dashed), "
            f"{100 * half:.1f} % of the surest half."
        )
        figure = plots.risk(coverage, risk)
        pictures.append(_svg(f"{stem}_risk", "Risk against coverage", figure, text))
    return pictures


def _spread(values: Sequence[float], digits: int = 3) -> str:
    """Their mean, and of several their standard deviation."""
    found = grouping.spread(values)
    assert found is not None
    std = "" if found.std is None else f" ± {found.std:.{digits}f}"
    return f"{found.mean:.{digits}f}{std}"


def _class_accuracy(says: Predictions, classes: np.ndarray) -> np.ma.MaskedArray:
    """The accuracy of each of some classes; masked where this run has no image of one."""
    right, count = (
        np.bincount(labels, minlength=classes[-1] + 1)[classes]
        for labels in (says.labels[says.labels == says.predicted], says.labels)
    )
    return np.ma.masked_where(count == 0, right / np.maximum(count, 1))


def _class_names(group: Group, known: Sequence[Predictions]) -> list[str]:
    """The names, or numbers where `data.json` is missing."""
    names = max((run.class_names for run in group.runs), key=len)
    count = 1 + max(max(int(p.labels.max()), int(p.predicted.max())) for p in known)
    return [names[i] if i < len(names) else str(i) for i in range(max(count, len(names)))]


def labeled(group: Group) -> list[Picture]:
    """The labelled images of some runs."""
    return [
        picture
        for run in group.runs[:_SHEETS]
        for picture in _file(run, "labelled.png", _file_name(f"labelled_{run.name}"), run.name, "")
    ]


def mistakes(run: Run) -> list[Mistake]:
    """The test images that the run is most sure of and wrong about."""
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


def _file(run: Run, file: str, name: str, title: str, text: str) -> list[Picture]:
    """A picture that the run itself has drawn, if it has."""
    try:
        data = within(run.path, file).read_bytes()
    except (OSError, ValueError):
        return []
    return [Picture(name, title, text, "png", data)] if data.startswith(_PNG) else []


def _file_name(text: str) -> str:
    """A part of a file's name; where the text is long, its beginning and a hash."""
    name = "".join(c if c.isalnum() or c in "._=+-" else "_" for c in text)
    if len(name) <= _LONGEST:
        return name
    return f"{name[:_LONGEST]}_{hashlib.sha256(text.encode()).hexdigest()[:8]}"
