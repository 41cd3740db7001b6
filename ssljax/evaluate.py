"""A state of training -> exact accuracies; a run directory -> the figures it recorded."""

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ssljax.data.load import scored
from ssljax.recipe import Recipe
from ssljax.training import hosts, metrics, parallel, run_directory
from ssljax.training.parallel import Evaluate
from ssljax.training.state import TrainState

Scores = dict[str, float]
# What the headline is about: test images, or validation images where there are none.
HEADLINES = {"test": "test/accuracy_ema", "validation": "valid/accuracy_ema"}


def evaluate_state(recipe: Recipe, evaluate: Evaluate, state: TrainState) -> Scores:
    """Accuracy (0..1) and cross-entropy (nats) on validation and test images.

    Args:
      evaluate: `recipe.evaluator()`.
      state: replicated.

    Returns:
      `{test,valid}/{accuracy,loss,class_entropy}_{raw,ema}`, the last one that of the predicted
      classes in nats, with more than 10 classes also `accuracy_top5`; a part without labelled
      images is left out.
    """
    weights = {kind: state.weights(kind) for kind in ("raw", "ema")}
    data, size = recipe.dataset, recipe.eval_batch_size
    parts = {
        "valid": (data.batches, scored(data, recipe.split)),
        "test": (data.test_batches, np.arange(len(data.test_labels))),
    }
    scores: Scores = {}
    for part, (batches, indices) in parts.items():
        mine = batches(parallel.own_part(indices), parallel.own_batch(size))
        means = evaluate(weights, parallel.in_step(mine, len(indices), size, data.image_shape))
        for kind, of_kind in means.items():
            for name, value in of_kind.items():
                if name == "classes":
                    name, value = "class_entropy", metrics.entropy(value)
                scores[f"{part}/{name}_{kind}"] = float(value)
    return scores


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
    """`results.json` from the rows of `metrics.jsonl`, the last one an evaluation.

    The headline is the median test accuracy (EMA weights) of the last 20 evaluations, as the
    MixMatch and FixMatch papers report it: not the best one, which would be chosen on the test set.
    """
    part = "test" if any(HEADLINES["test"] in row for row in rows) else "validation"
    evaluations = [row for row in rows if HEADLINES[part] in row]
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


def headline(record: dict[str, Any]) -> str:
    """The line that a run ends with."""
    head = record["headline"]
    part = "test" if "test_accuracy" in head else "validation"
    return (
        f"headline: {part} accuracy {100 * head[f'{part}_accuracy']:.2f} % (EMA weights, median of "
        f"the last {head['evaluations']} evaluations)"
    )


def evaluate_directory(recipe: Recipe, workdir: Path) -> tuple[int, Scores]:
    """Evaluates the newest checkpoint of a run directory: its step and scores.

    Raises:
      UsageError: there is no checkpoint, it cannot be read, or it is of another run.
    """
    shapes = recipe.shapes

    def read() -> TrainState:
        run_directory.require_same_run(workdir, recipe.config, recipe.split)
        return run_directory.newest_state(
            workdir, shapes, keep=recipe.keep_checkpoints, fallback=recipe.fallback
        )

    state = hosts.restored(read, shapes["state"])
    assert state is not None
    replicated = parallel.replicate(state, recipe.devices)
    return int(state.step), evaluate_state(recipe, recipe.evaluator(), replicated)
