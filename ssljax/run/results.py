"""The rows of a run -> its results, and how both are told. Needs no JAX."""

import statistics
from collections.abc import Sequence
from typing import Any

import numpy as np

Scores = dict[str, float]
# What the headline is about: test images, or validation images where there are none.
HEADLINES = {"test": "test/accuracy_ema", "validation": "valid/accuracy_ema"}


def describe(scores: Scores) -> str:
    """One line: `test accuracy 95.00 % EMA, 94.72 % raw; validation accuracy …`."""

    def percent(key: str) -> str:
        return f"{100 * scores[f'{key}_ema']:.2f} % EMA, {100 * scores[f'{key}_raw']:.2f} % raw"

    return "; ".join(
        f"{part} {title} {percent(key)}"
        for key, part, title in (
            ("test/accuracy", "test", "accuracy"),
            ("test/accuracy_top5", "test", "top-5 accuracy"),
            ("valid/accuracy", "validation", "accuracy"),
            ("valid/accuracy_top5", "validation", "top-5 accuracy"),
        )
        if f"{key}_ema" in scores
    )


def results(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """`results.json` from the rows of `metrics.jsonl`; where nothing was evaluated, no headline.

    The headline is the median test accuracy (EMA weights) of the last 20 evaluations, as the
    MixMatch and FixMatch papers report it: not the best one, which would be chosen on the test set.
    """
    part = evaluated_part(rows)
    evaluations = [row for row in rows if row.get(HEADLINES[part]) is not None]
    if not evaluations:
        return {"step": rows[-1]["step"] if rows else 0, "headline": {}, "last": {}}
    last = evaluations[-1]
    accuracies = [row[HEADLINES[part]] for row in evaluations[-20:]]
    scores = {k: v for k, v in last.items() if k.startswith(("test/", "valid/"))}
    return {
        "step": last["step"],
        "headline": {
            f"{part}_accuracy": float(np.round(statistics.median(accuracies), 6)),
            "weights": "ema",
            "evaluations": len(accuracies),
        },
        "last": scores,
    }


def evaluated_part(rows: Sequence[dict[str, Any]]) -> str:
    """What the headline is about: test images, or validation images where there are none."""
    is_known = any(row.get(HEADLINES["test"]) is not None for row in rows)
    return "test" if is_known else "validation"


def headline(record: dict[str, Any]) -> str:
    """The line that a run ends with."""
    head = record["headline"]
    if not head:
        return "headline: nothing was evaluated, as there are no test and no validation images"
    part = "test" if "test_accuracy" in head else "validation"
    return (
        f"headline: {part} accuracy {100 * head[f'{part}_accuracy']:.2f} % (EMA weights, median of "
        f"the last {head['evaluations']} evaluations)"
    )
