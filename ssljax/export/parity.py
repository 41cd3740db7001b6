"""An exported model beside the JAX model, on real images: is anything lost on the way out?

Logits are compared, not probabilities: where a softmax is saturated, everything agrees. The
exported model is given batches of another size than JAX's, so that a model whose outputs depend on
the other images of a batch does not pass.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from ssljax.trained import Trained

BATCH = 64  # images that JAX computes at once
ANY = 48  # images that an exported model for any batch size is given at once
TOLERANCE = 1e-4  # of the logits, relative to the largest
DISAGREEMENT = 0.001  # share of the images whose prediction may differ


class Artefact(NamedTuple):
    """An exported model that can be run."""

    run: Callable[[np.ndarray], np.ndarray]  # images [n, H, W, C] -> logits [n, classes]
    batch_size: int | None = None  # n; None: any

    def logits(self, images: np.ndarray) -> np.ndarray:
        """Of any number of images, as many at a time as the model takes."""
        size = self.batch_size or ANY
        parts = []
        for i in range(0, len(images), size):
            part = images[i : i + size]
            missing = size - len(part) if self.batch_size else 0
            full = np.pad(part, [(0, missing), *[(0, 0)] * (images.ndim - 1)])
            parts.append(self.run(full)[: len(part)])
        return np.concatenate(parts)


def compare(
    trained: Trained,
    artefacts: Mapping[str, Artefact],
    batches: Iterable[tuple[np.ndarray, np.ndarray]],
    *,
    input_dtype: str,
    limit: int | None = None,
    recorded: float | None = None,
) -> dict[str, Any]:
    """What `parity.json` holds.

    Args:
      batches: uint8 images and their labels, -1: none.
      limit: how many images are compared; None: all.
      recorded: the accuracy that the run itself found on the same images, 0..1.
    """
    model = jax.jit(trained.serve())
    sums = {name: _Sums() for name in artefacts}
    seen = 0
    for images, labels in batches:
        rest = len(images) if limit is None else limit - seen
        images, labels = images[:rest].astype(input_dtype), labels[:rest]
        if not len(images):
            break
        # The last batch is filled up, so that nothing is compiled twice.
        full = np.pad(images, [(0, max(BATCH - len(images), 0)), (0, 0), (0, 0), (0, 0)])
        expected = np.asarray(model(trained.variables, full)["logits"])[: len(images)]
        for name, artefact in artefacts.items():
            sums[name].add(expected, artefact.logits(images), labels)
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
        "tolerance": TOLERANCE,
        "disagreement_allowed": DISAGREEMENT,
        "top1_recorded": recorded,
        "exported": compared,
        "passed": bool(seen and as_recorded and all(map(_passes, compared.values()))),
    }


class _Sums:
    """What is counted over batches."""

    def __init__(self) -> None:
        self.images = self.labeled = self.same = 0
        self.right = np.zeros(2, int)
        self.total = self.largest = self.scale = 0.0
        self.values = 0

    def add(self, expected: np.ndarray, found: np.ndarray, labels: np.ndarray) -> None:
        difference = np.abs(expected.astype(np.float64) - found)
        classes = expected.argmax(axis=-1), found.argmax(axis=-1)
        self.images += len(labels)
        self.labeled += int(np.sum(labels >= 0))
        self.same += int(np.sum(classes[0] == classes[1]))
        self.right += [int(np.sum(c == labels)) for c in classes]
        self.total += float(difference.sum())
        self.values += difference.size
        # Not max(): it would lose a NaN.
        self.largest = float(np.maximum(self.largest, difference.max()))
        self.scale = float(np.maximum(self.scale, np.abs(expected).max()))

    def summary(self) -> dict[str, Any]:
        top1 = self.right / self.labeled if self.labeled else (None, None)
        return {
            "top1_jax": None if top1[0] is None else float(top1[0]),
            "top1_exported": None if top1[1] is None else float(top1[1]),
            "agreement": self.same / max(self.images, 1),
            "max_abs_difference": self.largest,
            "mean_abs_difference": self.total / max(self.values, 1),
            "max_abs_logit": self.scale,
        }


def _passes(compared: Mapping[str, Any]) -> bool:
    return bool(
        compared["agreement"] >= 1 - DISAGREEMENT
        and compared["max_abs_difference"] <= TOLERANCE * compared["max_abs_logit"]
    )


def describe(report: Mapping[str, Any]) -> str:
    """A line for each exported model, and the verdict."""

    def percent(value: float | None) -> str:
        return "none" if value is None else f"{100 * value:.2f} %"

    lines = [
        f"{name}: top-1 {percent(c['top1_exported'])}, JAX {percent(c['top1_jax'])}; "
        f"{100 * c['agreement']:.3f} % of {report['images']} predictions agree; logits (up to "
        f"{c['max_abs_logit']:.4g}) differ by at most {c['max_abs_difference']:.3g}, by "
        f"{c['mean_abs_difference']:.3g} on average"
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
            f"{TOLERANCE:g} of the largest)",
        ]
    )
