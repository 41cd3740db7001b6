"""Computes a run's results from its rows, and formats both as text. Needs no JAX."""

import statistics
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

Scores = dict[str, float]
# The part in the headline: test images, or validation images if there are none.
HEADLINES = {"test": "test/accuracy_ema", "validation": "valid/accuracy_ema"}
COUNTED = 20  # evaluations that the headline is the median of, the last ones
# Further scores of the EMA weights, reported if the classes are not equally frequent.
BALANCED = {"balanced_accuracy": "balanced accuracy", "macro_f1": "macro F1"}


def describe(scores: Scores, uneven: Collection[str] = ()) -> str:
    """Formats scores as one line: `test accuracy 95.00 % EMA, 94.72 % raw; validation accuracy …`.

    Args:
      uneven: the parts, of `HEADLINES`, for which `BALANCED` is included.
    """
    shown = {"accuracy": "accuracy", "accuracy_top5": "top-5 accuracy", **BALANCED}

    def percent(key: str) -> str:
        kinds = [(f"{key}_{kind.lower()}", kind) for kind in ("EMA", "raw")]
        return ", ".join(f"{100 * scores[k]:.2f} % {kind}" for k, kind in kinds if k in scores)

    return "; ".join(
        f"{part} {title} {percent(key)}"
        for part, prefix in (("test", "test"), ("validation", "valid"))
        for name, title in shown.items()
        for key in [f"{prefix}/{name}"]
        if f"{key}_ema" in scores and (name not in BALANCED or part in uneven)
    )


def describe_classes(row: dict[str, Any]) -> str:
    """Formats the monitors of the rarest and most frequent class; "": the row has none."""
    texts = []
    for kind, title in (("rarest", "rarest class"), ("frequent", "most frequent class")):
        keys = {"mask rate": f"guess/mask_rate_{kind}", "guess accuracy": f"guess/accuracy_{kind}"}
        known = [f"{name} {row[k]:.2f}" for name, k in keys.items() if row.get(k) is not None]
        if known:
            texts.append(f"{title}: {', '.join(known)}")
    return "; ".join(texts)


def results(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Computes `results.json` from the rows of `metrics.jsonl`; without evaluations, no headline.

    The headline is the median test accuracy (EMA weights) of the last 20 evaluations, as reported
    by the MixMatch and FixMatch papers. The best accuracy would be selected on the test set. The
    medians of `BALANCED` over the same evaluations are included.
    """
    part = evaluated_part(rows)
    evaluations = [row for row in rows if row.get(HEADLINES[part]) is not None]
    if not evaluations:
        return {"step": rows[-1]["step"] if rows else 0, "headline": {}, "last": {}}
    last = evaluations[-1]
    counted = evaluations[-COUNTED:]
    figures = {}
    for name in ("accuracy", *BALANCED):
        key = HEADLINES[part].replace("accuracy", name)
        values = [row[key] for row in counted if row.get(key) is not None]
        if len(values) == len(counted):  # rows of older versions only have the accuracy
            figures[f"{part}_{name}"] = float(np.round(statistics.median(values), 6))
    scores = {k: v for k, v in last.items() if k.startswith(("test/", "valid/"))}
    return {
        "step": last["step"],
        "headline": {**figures, "weights": "ema", "evaluations": len(counted)},
        "last": scores,
    }


def evaluated_part(rows: Sequence[dict[str, Any]]) -> str:
    """Returns the part in the headline: test images, or validation images if there are none."""
    is_known = any(row.get(HEADLINES["test"]) is not None for row in rows)
    return "test" if is_known else "validation"


def headline(record: dict[str, Any], uneven: Collection[str] = ()) -> str:
    """Formats the final line of a run.

    Args:
      uneven: as for `describe`.
    """
    head = record["headline"]
    if not head:
        return "headline: nothing was evaluated, as there are no test and no validation images"
    part = "test" if "test_accuracy" in head else "validation"
    shown = {"accuracy": "accuracy"} | (BALANCED if part in uneven else {})
    figures = [
        f"{title} {100 * head[f'{part}_{name}']:.2f} %"
        for name, title in shown.items()
        if f"{part}_{name}" in head
    ]
    median = "median" if len(figures) == 1 else "medians"
    return (
        f"headline: {part} {', '.join(figures)} (EMA weights, {median} of the last "
        f"{head['evaluations']} evaluations)"
    )
