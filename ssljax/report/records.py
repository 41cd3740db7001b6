"""Reads and checks files of a run directory for its report; the files are not trusted."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ssljax import reliability
from ssljax.data import arrays
from ssljax.log import printable
from ssljax.reliability import Diagram

_ROUNDING = 1e-6  # rounding error of a float32 softmax
_MOST_CLASSES = 1_000_000  # a limit, because tables over classes are in memory


class Predictions(NamedTuple):
    """The content of `predictions.npz`, see `run/artifacts.py`."""

    step: int
    part: str  # test or validation
    labels: np.ndarray  # [T] int32
    predicted: np.ndarray  # [T] int32
    confidence: np.ndarray  # [T] float32
    mistakes: np.ndarray  # [K] int32, indices into the above, most confident first
    mistake_images: np.ndarray  # [K, H, W, C] uint8
    mistake_names: tuple[str, ...] = ()  # names of the mistaken images; (): files of old versions

    @property
    def reliability(self) -> Diagram:
        """The reliability diagram: accuracy of the predictions per confidence."""
        return reliability.diagram(self.confidence, self.predicted == self.labels)


class Calibration(NamedTuple):
    """The content of `calibration.json`, see `inference/calibrate.py`."""

    temperature: float
    on: str  # validation or labelled: the images of the calibration
    images: int
    ece_before: float
    ece_after: float
    reliability: tuple[Diagram, Diagram] | None  # before and after; None: files of old versions
    confidence: np.ndarray  # [N], of validation images; or empty
    right: np.ndarray  # [N] bool


def predictions(file: Path) -> Predictions:
    """Reads and checks `predictions.npz`; raises ValueError or UsageError if it is damaged."""
    optional = {*Predictions._field_defaults} - {*arrays.names(file)}
    values: dict[str, Any] = dict(arrays.read(file, {*Predictions._fields} - optional))
    names = values.pop("mistake_names", np.array([], np.str_))
    values |= {"step": int(values["step"]), "part": printable(values["part"])}
    says = Predictions(**values, mistake_names=tuple(map(printable, names.tolist())))
    count = len(says.labels)
    for name, found in (("labels", says.labels), ("predicted", says.predicted)):
        if found.shape != (count,) or found.dtype.kind not in "iu" or not count:
            raise ValueError(f"{name} is {found.dtype} {list(found.shape)}")
        if found.min() < 0 or found.max() >= _MOST_CLASSES:
            raise ValueError(f"{name} is from {found.min()} to {found.max()}")
    if says.confidence.shape != (count,) or says.confidence.dtype.kind != "f":
        raise ValueError(f"confidence is {says.confidence.dtype} {list(says.confidence.shape)}")
    if not np.all((says.confidence >= 0) & (says.confidence <= 1 + _ROUNDING)):
        raise ValueError("confidence is not from 0 to 1")
    images, index = says.mistake_images, says.mistakes
    fits = index.ndim == 1 and index.dtype.kind in "iu" and len(index) == len(images)
    if not fits or not np.all((index >= 0) & (index < count)):
        raise ValueError("mistakes are not among the evaluated images")
    if names.dtype.kind != "U" or names.shape not in ((0,), index.shape):
        raise ValueError(f"mistake_names is {names.dtype} {list(names.shape)}")
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] not in (1, 3):
        raise ValueError(f"mistake_images is {images.dtype} {list(images.shape)}")
    return says


def calibration(found: Mapping[str, Any], step: int) -> Calibration | None:
    """Checks the content of `calibration.json`; None: it is not of the run's last step.

    Raises:
      ValueError, KeyError, TypeError: the content has another form.
    """
    if found["step"] != step:
        return None
    diagrams = found.get("reliability")
    confidence, right = (np.array(found.get(name, [])) for name in ("confidence", "right"))
    if confidence.ndim != 1 or confidence.shape != right.shape or {*right.tolist()} - {0, 1}:
        raise ValueError("confidence and right do not fit together")
    numbers = (float(found[name]) for name in ("temperature", "ece_before", "ece_after"))
    temperature, before, after = numbers
    if not (math.isfinite(temperature) and 0 <= before <= 1 and 0 <= after <= 1):
        raise ValueError(f"it has temperature {temperature}, errors {before} and {after}")
    return Calibration(
        temperature,
        str(found["on"]),
        int(found["images"]),
        before,
        after,
        diagrams and (_diagram(diagrams["before"]), _diagram(diagrams["after"])),
        confidence.astype(float),
        right.astype(bool),
    )


def _diagram(recorded: Mapping[str, Any]) -> Diagram:
    found = Diagram(*(np.array(recorded[name], float) for name in Diagram._fields))
    columns = np.stack(found)  # raises ValueError if the lengths differ
    if columns.ndim != 2 or not np.isfinite(columns).all() or not found.images.sum() > 0:
        raise ValueError("a diagram has another form")
    if np.any(columns < 0) or np.any(columns[:3] > 1) or np.any(found.left == 1):
        raise ValueError("a diagram is not from 0 to 1")
    return found
