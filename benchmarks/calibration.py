"""Measures how reliable a run's confidences are on the test images, which it has never seen.

    python -m benchmarks.calibration [--seeds 1 2 3 4 5] [--max_error 0.1]
        [--config=fixmatch_digits] [--config.dataset=digits.{seed}@40-200] [--config.<knob>=<value>]

Trains a recipe with each seed. Prints a row per seed and one line of JSON: the expected calibration
error and the cross-entropy on the test images without and with the run's temperature; the share of
test images that `--max_error` trusts, and the error among them.
"""

import argparse
import json
import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import ssljax
from ssljax import overrides, parts, reliability
from ssljax.data.datasets import Dataset
from ssljax.errors import UsageError
from ssljax.inference import calibrate, calibration
from ssljax.trained import Trained


def _calibration_error(confidence: np.ndarray, right: np.ndarray) -> float:
    return reliability.expected_calibration_error(reliability.diagram(confidence, right))


def _cross_entropy(probabilities: np.ndarray, labels: np.ndarray) -> float:
    of_labels = probabilities[np.arange(len(labels)), labels]
    return -float(np.mean(np.log(np.maximum(of_labels, 1e-30))))


def measured(model: Trained, images: np.ndarray, labels: np.ndarray, max_error: float) -> Any:
    """Returns a row of the table; `trusted` and `error` are None if no confidence suffices."""
    scaled = model.predict_proba(images)
    # Recovers the uncalibrated probabilities from the logits, which are known up to a constant.
    raw = calibration.softmax(np.log(np.maximum(scaled, 1e-30)) * model.temperature)
    confidence, right = scaled.max(axis=-1), scaled.argmax(axis=-1) == labels
    error = _calibration_error
    row = {
        "accuracy": float(right.mean()),
        "temperature": model.temperature,
        "ece_before": error(raw.max(axis=-1), right),
        "ece_after": error(confidence, right),
        "loss_before": _cross_entropy(raw, labels),
        "loss_after": _cross_entropy(scaled, labels),
    }
    try:
        limit = calibrate.trusted_confidence(model, max_error).confidence
    except UsageError:
        return row | {"trusted": None, "error": None}
    kept = confidence >= limit
    return row | {
        "trusted": float(kept.mean()),
        "error": float(np.mean(~right[kept])) if kept.any() else 0.0,
    }


def of_seed(recipe: str, given: Sequence[str], seed: int, home: Path, max_error: float) -> Any:
    """Trains a recipe with a seed, and measures it."""
    filled = [override.replace("{seed}", str(seed)) for override in given]
    config = overrides.load(recipe, [*filled, f"seed={seed}"])
    model = ssljax.train(config, home / f"run{seed}")
    data, _ = parts.load_data(config)
    assert isinstance(data, Dataset)  # not a stream
    return {"seed": seed} | measured(model, data.test_images, data.test_labels, max_error)


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0], allow_abbrev=False)
    parser.add_argument("--config", default="fixmatch_digits")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--max_error", type=float, default=0.1)
    args, rest = parser.parse_known_args()
    given = [argument.removeprefix("--config.") for argument in rest]
    if not given:
        given = ["dataset=digits.{seed}@40-200", "unlabeled=strict", "num_steps=1000"]
    logging.getLogger("ssljax").setLevel(logging.ERROR)
    rows = []
    with tempfile.TemporaryDirectory() as home:
        for seed in args.seeds:
            rows.append(of_seed(args.config, given, seed, Path(home), args.max_error))
            print(
                " ".join(f"{k} {v:.4g}" for k, v in rows[-1].items() if v is not None), flush=True
            )
    means = {name: np.mean([row[name] for row in rows]) for name in rows[0] if "_" in name}
    kept = sum(row["error"] is None or row["error"] <= args.max_error for row in rows)
    print(
        "on average: calibration error {ece_before:.4f} before, {ece_after:.4f} after; "
        "cross-entropy {loss_before:.4f} before, {loss_after:.4f} after; ".format(**means)
        + f"the error among the trusted is at most {args.max_error} in {kept} of {len(rows)} seeds"
    )
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
