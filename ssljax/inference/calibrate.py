"""Determines the temperature of a trained run: `calibration.json`."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np

from ssljax import reliability
from ssljax.data.datasets import Dataset
from ssljax.data.load import labeled_validation
from ssljax.data.splits import Split
from ssljax.data.streaming import StreamedDataset
from ssljax.errors import UsageError
from ssljax.inference import calibration
from ssljax.log import LOG
from ssljax.storage.files import write_sealed
from ssljax.trained import CALIBRATION, Trained

_ENOUGH = 50  # minimum number of validation images to determine a temperature from them alone


def measure(trained: Trained, data: Dataset | StreamedDataset, split: Split) -> dict[str, Any]:
    """Determines the temperature for a model's weights, and its effect on the calibration error.

    It is fitted on the validation images that are not labelled ones. If there are fewer than 50,
    the labelled images are added. The model has memorised these and is overconfident on them, so
    the temperature is then at least 1, and no trusted confidences are determined.

    Returns:
      The content of `calibration.json`: `temperature`; `on`, "validation" or "labelled"; `images`,
      their number; `ece_before` and `ece_after`, calibration errors 0..1, where each image's
      temperature is fitted on other images; `reliability`, the corresponding diagrams `before` and
      `after`, with the fields of `reliability.Diagram`; and for validation images the lists
      `confidence` and `right`, from which `max_error` is computed.

    Raises:
      UsageError: there are no labelled images.
    """
    valid = np.setdiff1d(labeled_validation(data, split), split.labeled)
    enough = len(valid) >= _ENOUGH
    indices = valid if enough else np.union1d(valid, split.labeled)
    logits, labels = _logits(trained, data, indices)
    least = 0.0 if enough else 1.0
    temperature = max(least, calibration.fit_temperature(logits, labels))
    right = logits.argmax(axis=-1) == labels  # independent of the temperature
    before, after = (
        reliability.diagram(probabilities.max(axis=-1), right)
        for probabilities in (calibration.softmax(logits), _crossed(logits, labels, least))
    )
    found = {
        "step": trained.step,
        "weights": trained.weights,
        "temperature": temperature,
        "on": "validation" if enough else "labelled",
        "images": len(labels),
        "ece_before": reliability.expected_calibration_error(before),
        "ece_after": reliability.expected_calibration_error(after),
        "reliability": {"before": _record(before), "after": _record(after)},
    }
    if enough:
        confidence = calibration.softmax(logits, temperature).max(axis=-1)
        found |= {"confidence": _rounded(confidence), "right": right.tolist()}
    return found


def _record(diagram: reliability.Diagram) -> dict[str, list[float]]:
    return {name: _rounded(values) for name, values in diagram._asdict().items()}


def _rounded(values: np.ndarray) -> list[float]:
    return np.round(values.astype(float), 6).tolist()


def store(trained: Trained, data: Dataset | StreamedDataset, split: Split) -> Trained:
    """Writes `calibration.json` into the run directory of `trained`, and logs the result.

    Returns:
      The model with its calibration.
    """
    assert trained.workdir is not None
    if trained.calibration:
        return trained  # already calibrated for these weights
    found = measure(trained, data, split)
    write_sealed(trained.workdir / CALIBRATION, found)
    LOG.info(
        "calibration: temperature %.2f, from %d %s images; calibration error %.1f %% before, "
        "%.1f %% after",
        found["temperature"], found["images"], found["on"],
        100 * found["ece_before"], 100 * found["ece_after"],
    )  # fmt: skip
    return dataclasses.replace(trained, calibration=found)


def trusted_confidence(trained: Trained, max_error: float) -> calibration.Trusted:
    """Returns the calibrated confidence above which predictions have at most this error.

    Raises:
      UsageError: `max_error` is not between 0 and 1, the run has too few validation images, or no
        confidence satisfies it.
    """
    found = trained.calibration
    if "confidence" not in found:
        raise UsageError(
            f"--max_error={max_error} needs {_ENOUGH} validation images that are not labelled; "
            f"{trained.workdir} has fewer (config.dataset …@<labels>-<validation images>)"
        )
    confidence, right = np.array(found["confidence"]), np.array(found["right"])
    trust = calibration.trusted(confidence, right, max_error=max_error)
    if trust is None:
        raise UsageError(
            f"--max_error={max_error}: no confidence guarantees it with {len(right)} validation "
            f"images, of which {int(np.sum(~right))} are wrong; allowed: a larger error, or more "
            "validation images"
        )
    return trust


def _crossed(logits: np.ndarray, labels: np.ndarray, least: float, folds: int = 5) -> np.ndarray:
    """Returns probabilities `[N, C]`, with each fold's temperature fitted on the other folds."""
    fold = np.random.default_rng(0).permutation(len(labels)) % folds
    found = np.zeros(logits.shape, np.float32)
    for k in range(folds):
        inside = fold == k
        others = ~inside if (~inside).any() else inside
        temperature = max(least, calibration.fit_temperature(logits[others], labels[others]))
        found[inside] = calibration.softmax(logits[inside], temperature)
    return found


def _logits(
    trained: Trained, data: Dataset | StreamedDataset, indices: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Returns logits `[N, C]` and labels `[N]` of labelled training images."""
    size = trained.batch_size(len(indices))
    labels = [np.zeros(0, np.int64)]

    def images() -> Iterator[np.ndarray]:
        for pixels, of_batch in data.batches(indices, size):
            labels.append(of_batch)
            yield pixels

    logits = [x.logits for x in trained.outputs(images(), size)]
    none = np.zeros((0, len(trained.class_names)), np.float32)
    return np.concatenate([none, *logits]), np.concatenate(labels)
