"""Measures how many wrong labels of the digits `--mode=label_errors` finds.

    python -m benchmarks.label_errors [--seeds 1 2 3 4 5] [--labels 100] [--steps 400] [--share 0.1]

Changes a fraction of the labels at random, trains FixMatch on some of them with 50 more for
validation, and ranks these labels by quality: out of fold, and by the model's own prediction.
Prints a table of means over the seeds: the area under the ROC curve of wrong against right labels;
with k wrong labels, the fraction of them among the first k rows; and how many of the labels
reported as issues are wrong.
"""

import argparse
import logging
import tempfile
from pathlib import Path

import numpy as np
from sklearn.metrics import roc_auc_score

import ssljax
from ssljax import overrides, parts
from ssljax.data import datasets
from ssljax.inference import label_errors


def figures(probabilities: np.ndarray, labels: np.ndarray, wrong: np.ndarray) -> list[float]:
    """Returns a row of the table for one seed."""
    quality = label_errors.label_quality(probabilities, labels)
    issues = label_errors.issues(probabilities, labels)
    first = np.argsort(quality, kind="stable")[: wrong.sum()]
    found = float(wrong[issues].mean()) if issues.any() else float("nan")
    return [roc_auc_score(wrong, -quality), float(wrong[first].mean()), found, float(issues.sum())]


def of_seed(seed: int, home: Path, *, labels: int, steps: int, share: float) -> np.ndarray:
    """Returns the two rows of one seed, `[2, 4]`."""
    digits, random = datasets.digits(), np.random.default_rng(seed)
    wrong = random.random(len(digits.labels)) < share
    moved = (digits.labels + random.integers(1, 10, len(wrong))) % 10
    np.savez(
        home / f"{seed}.npz",
        train_images=digits.images,
        train_labels=np.where(wrong, moved, digits.labels),
        test_images=digits.test_images,
        test_labels=digits.test_labels,
    )
    given = [f"dataset=npz:{home}/{seed}.npz.{seed}@{labels}-50", "unlabeled=strict"]
    given += [f"num_steps={steps}", f"eval_every={steps}", f"log_every={steps}"]
    config = overrides.load("fixmatch_digits", given)
    model = ssljax.train(config, home / f"run{seed}")
    data, split = parts.load_data(config)
    found = label_errors.find(model, data, split)
    own = model.predict_proba(data.pick(found.numbers))
    return np.array(
        [figures(p, found.labels, wrong[found.numbers]) for p in (found.probabilities, own)]
    )


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--labels", type=int, default=100)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--share", type=float, default=0.1)
    args = parser.parse_args()
    logging.getLogger("ssljax").setLevel(logging.ERROR)
    options = {"labels": args.labels, "steps": args.steps, "share": args.share}
    with tempfile.TemporaryDirectory() as home:
        rows = np.nanmean([of_seed(seed, Path(home), **options) for seed in args.seeds], axis=0)
    print(
        "| prediction | area under ROC | found among the first | issues that are wrong | issues |"
    )
    print("| --- | --- | --- | --- | --- |")
    for name, (area, first, right, issues) in zip(
        ("out of fold", "model's own"), rows, strict=True
    ):
        print(f"| {name} | {area:.3f} | {first:.0%} | {right:.0%} | {issues:.1f} |")


if __name__ == "__main__":
    main()
