"""Compares an exported model with the JAX model on real images.

Logits are compared, because all models agree where a softmax is saturated; and probabilities,
which depend on the temperature. The exported model gets batches of another size than JAX, so that
a model whose outputs depend on the other images of a batch fails.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import jax
import numpy as np

from ssljax.export.artefact import Artefact
from ssljax.forward import Outputs
from ssljax.trained import OUTPUTS, Trained

BATCH = 64  # batch size of the JAX model
ANY = 48  # batch size of an exported model that takes any batch size
TOLERANCE = 1e-4  # maximum difference of logits, relative to the largest logit
PROBABILITIES = 1e-4  # maximum difference of probabilities, which reveals a wrong temperature
DISAGREEMENT = 0.001  # fraction of the images whose prediction may differ


def spread(labels: np.ndarray, count: int) -> np.ndarray:
    """Returns `count` images, ascending, balanced over classes if possible, evenly spaced.

    Args:
      labels: `[N]`; -1, no label, counts as a class.
    """
    groups = [np.flatnonzero(labels == c) for c in np.unique(labels)]
    chosen, left = [np.zeros(0, int)], min(count, len(labels))
    for done, group in enumerate(sorted(groups, key=len)):
        share = min(len(group), left // (len(groups) - done))
        chosen.append(group[(2 * np.arange(share) + 1) * len(group) // (2 * share or 1)])
        left -= share
    return np.sort(np.concatenate(chosen))


def compare(
    trained: Trained,
    artefacts: Mapping[str, Artefact],
    batches: Iterable[tuple[np.ndarray, np.ndarray]],
    *,
    input_dtype: str,
    recorded: float | None = None,
) -> dict[str, Any]:
    """Compares the models and returns the content of `parity.json`.

    Args:
      batches: uint8 images and their labels, -1: none.
      recorded: the accuracy that the run recorded on the same images, 0..1.
    """
    model = jax.jit(trained.serve())
    sums = {name: _Sums() for name in artefacts}
    seen = 0
    for images, labels in batches:
        images = images.astype(input_dtype)
        # The last batch is padded, so that nothing is compiled twice.
        full = np.pad(images, [(0, max(BATCH - len(images), 0)), (0, 0), (0, 0), (0, 0)])
        served = model(trained.variables, full)
        logits, probabilities = (np.asarray(served[name])[: len(images)] for name in OUTPUTS)
        expected = Outputs(logits, probabilities, None)
        for name, artefact in artefacts.items():
            sums[name].add(expected, artefact.outputs(images, ANY), labels)
        seen += len(images)
    compared = {name: s.summary() for name, s in sums.items()}
    near = 0.01 if trained.config.get("bfloat16") else DISAGREEMENT
    as_recorded = recorded is None or all(
        abs(c["top1_jax"] - recorded) <= near for c in compared.values()
    )
    return {
        "step": trained.step,
        "weights": trained.weights,
        "images": seen,
        "temperature": trained.temperature,
        "tolerance": TOLERANCE,
        "tolerance_probabilities": PROBABILITIES,
        "disagreement_allowed": DISAGREEMENT,
        "top1_recorded": recorded,
        "exported": compared,
        "passed": bool(seen and as_recorded and all(map(_passes, compared.values()))),
    }


class _Sums:
    """Sums and extremes over batches."""

    def __init__(self) -> None:
        self.images = self.labeled = self.same = 0
        self.right = np.zeros(2, int)
        self.total = self.largest = self.scale = self.probabilities = 0.0
        self.values = 0

    def add(self, expected: Outputs, found: Outputs, labels: np.ndarray) -> None:
        difference = np.abs(expected.logits.astype(np.float64) - found.logits)
        classes = expected.logits.argmax(axis=-1), found.logits.argmax(axis=-1)
        self.images += len(labels)
        self.labeled += int(np.sum(labels >= 0))
        self.same += int(np.sum(classes[0] == classes[1]))
        self.right += [int(np.sum(c == labels)) for c in classes]
        self.total += float(difference.sum())
        self.values += difference.size
        # max() would ignore NaN.
        self.largest = float(np.maximum(self.largest, difference.max()))
        self.scale = float(np.maximum(self.scale, np.abs(expected.logits).max()))
        apart = np.abs(expected.probabilities - found.probabilities).max()
        self.probabilities = float(np.maximum(self.probabilities, apart))

    def summary(self) -> dict[str, Any]:
        top1 = self.right / self.labeled if self.labeled else (None, None)
        return {
            "top1_jax": None if top1[0] is None else float(top1[0]),
            "top1_exported": None if top1[1] is None else float(top1[1]),
            "agreement": self.same / max(self.images, 1),
            "max_abs_difference": self.largest,
            "mean_abs_difference": self.total / max(self.values, 1),
            "max_abs_logit": self.scale,
            "max_abs_difference_probabilities": self.probabilities,
        }


def _passes(compared: Mapping[str, Any]) -> bool:
    return bool(
        compared["agreement"] >= 1 - DISAGREEMENT
        and compared["max_abs_difference"] <= TOLERANCE * compared["max_abs_logit"]
        and compared["max_abs_difference_probabilities"] <= PROBABILITIES
    )


def describe(report: Mapping[str, Any]) -> str:
    """Describes each exported model and the verdict, one per line."""

    def percent(value: float | None) -> str:
        return "none" if value is None else f"{100 * value:.2f} %"

    lines = [
        f"{name}: top-1 {percent(c['top1_exported'])}, JAX {percent(c['top1_jax'])}; "
        f"{100 * c['agreement']:.3f} % of {report['images']} predictions agree; logits (up to "
        f"{c['max_abs_logit']:.4g}) differ by at most {c['max_abs_difference']:.3g}, by "
        f"{c['mean_abs_difference']:.3g} on average; probabilities at temperature "
        f"{report['temperature']:.4g} by at most {c['max_abs_difference_probabilities']:.3g}"
        for name, c in report["exported"].items()
    ]
    recorded = report["top1_recorded"]
    if recorded is not None:
        lines.append(f"the run itself recorded {percent(recorded)} on these images")
    verdict = "passed" if report["passed"] else "FAILED"
    return "\n".join(
        [
            *lines,
            f"parity {verdict} (allowed: {100 * DISAGREEMENT:g} % of the predictions, logits "
            f"{TOLERANCE:g} of the largest, probabilities {PROBABILITIES:g})",
        ]
    )
