"""Selects unlabelled images of a run to label next: `label_next.csv`, and a Label Studio file."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import numpy as np

from ssljax.data import sources
from ssljax.data.datasets import Dataset
from ssljax.data.splits import Split
from ssljax.data.streaming import StreamedDataset
from ssljax.errors import UsageError
from ssljax.inference import selection
from ssljax.inference.predict import of_run, predict
from ssljax.inference.table import readable
from ssljax.spreadsheet import inert
from ssljax.trained import Trained

STRATEGIES = ("typical", "margin", "entropy", "coreset", "committee")
# The address that Label Studio uses for files below LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT.
_LOCAL_FILES = "/data/local-files/?d="


class Choice(NamedTuple):
    """An image selected for labelling."""

    number: int  # number of the training image, from 0
    file: str  # name of the image
    why: str
    prediction: str  # class name; "": there is no model
    confidence: float  # confidence of the prediction, 0..1


def choose(
    members: Sequence[Trained],
    data: Dataset | StreamedDataset,
    split: Split,
    *,
    budget: int,
    strategy: str,
    seed: int = 0,
) -> list[Choice]:
    """Selects the images to label next, the most useful first.

    Args:
      members: trained models of the same classes: `committee` needs at least two, other strategies
        use the first one. Without models, `typical` and `coreset` use pixels alone.
      budget: the number of images.
      strategy: one of `STRATEGIES`, see `selection.py`.

    Raises:
      UsageError: the budget is larger than the pool, or the strategy needs other models.
    """
    taken = np.union1d(split.labeled, split.valid)
    pool = np.setdiff1d(np.union1d(split.unlabeled, np.flatnonzero(data.labels < 0)), taken)
    _check(members, budget, strategy, len(pool))
    looked_at = np.concatenate([pool, split.labeled])
    outputs = [_outputs(member, data, looked_at) for member in members[: _needed(strategy)]]
    labeled = np.arange(len(pool), len(looked_at))
    probabilities = [found[: len(pool)] for found, _ in outputs]
    features = outputs[0][1] if outputs else _pixels(data, looked_at)
    if strategy == "typical":
        chosen = selection.typical(features, labeled, budget, seed=seed)
        reasons = ["typical of images that have no label yet"] * budget
    elif strategy == "coreset":
        chosen = selection.coreset(features, labeled, budget)
        reasons = ["far from all labelled images"] * budget
    else:
        chosen, reasons = _uncertain(strategy, np.stack(probabilities), budget)
    names, classes = data.names(), data.class_names
    shown = np.mean(probabilities, axis=0) if probabilities else None
    return [
        Choice(
            int(pool[i]),
            names[pool[i]],
            why,
            classes[int(shown[i].argmax())] if shown is not None else "",
            float(shown[i].max()) if shown is not None else 0.0,
        )
        for i, why in zip(chosen, reasons, strict=True)
    ]


def _check(members: Sequence[Trained], budget: int, strategy: str, pool: int) -> None:
    if strategy not in STRATEGIES:
        raise UsageError(f"--strategy={strategy}; allowed: {', '.join(STRATEGIES)}")
    if not 1 <= budget <= pool:
        raise UsageError(f"--budget={budget}; allowed: 1 to {pool}, the images without a label")
    if strategy == "committee" and len(members) < 2:
        raise UsageError(
            f"--strategy=committee needs runs that differ, --workdir=<run>,<run>,…; there are "
            f"{len(members)}"
        )
    if strategy in ("margin", "entropy") and not members:
        raise UsageError(f"--strategy={strategy} needs a trained run; allowed: typical or coreset")


def _needed(strategy: str) -> int | None:
    """Returns the number of models used; None: all."""
    return None if strategy == "committee" else 1


def _uncertain(
    strategy: str, probabilities: np.ndarray, budget: int
) -> tuple[np.ndarray, list[str]]:
    """Selects images, with reasons, by `[K, N, C]` probabilities of K models."""
    values, chosen, text = {
        "margin": lambda p: (
            selection.margins(p[0]),
            selection.margin(p[0], budget),
            "the two likeliest classes differ by {:.3f}",
        ),
        "entropy": lambda p: (
            selection.entropies(p[0]),
            selection.entropy(p[0], budget),
            "entropy {:.3f} nats",
        ),
        "committee": lambda p: (
            selection.disagreements(p),
            selection.committee(p, budget),
            "the models disagree, {:.3f} nats",
        ),
    }[strategy](probabilities)
    return chosen, [text.format(values[i]) for i in chosen]


def _outputs(
    trained: Trained, data: Dataset | StreamedDataset, indices: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Returns probabilities `[N, C]` and features `[N, D]` of training images; 0 for unreadable
    ones."""
    source = sources.of_images(data, indices)
    chunks = list(predict(of_run(trained, source), source))
    read = np.concatenate([loaded.positions for loaded, _ in chunks])

    def rows(parts: Sequence[np.ndarray]) -> np.ndarray:
        values = np.concatenate(parts)
        found = np.zeros((len(indices), values.shape[1]), np.float32)
        found[read] = values
        return found

    names = ("probabilities", "features")
    probabilities, features = ([getattr(x, name) for _, x in chunks] for name in names)
    return rows(probabilities), rows(features)


def _pixels(data: Dataset | StreamedDataset, indices: np.ndarray) -> np.ndarray:
    """Returns features `[N, D]` without a model."""
    if not isinstance(data, Dataset):
        raise UsageError("--mode=label_next without a run reads images into memory, not streams")
    return selection.pixel_features(data.images[indices])


def write(directory: Path, choices: Sequence[Choice]) -> None:
    """Writes `label_next.csv`, with an empty column `label` to fill in, and `label_studio.json`."""
    with (directory / "label_next.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["file", "label", "prediction", "confidence", "why", "number"])
        for x in choices:
            name, prediction = inert(readable(x.file)), inert(x.prediction)
            rows.writerow([name, "", prediction, f"{x.confidence:.6f}", x.why, x.number])
    tasks = json.dumps([_task(choice) for choice in choices], indent=2)
    (directory / "label_studio.json").write_text(tasks + "\n", encoding="utf-8")


def _task(choice: Choice) -> dict[str, Any]:
    """Returns a Label Studio task with the prediction as its pre-annotation."""
    data = {
        "image": _LOCAL_FILES + quote(choice.file, errors="surrogateescape"),
        "file": readable(choice.file),
        "number": choice.number,
        "why": choice.why,
    }
    if not choice.prediction:
        return {"data": data}
    result = {
        "from_name": "label",
        "to_name": "image",
        "type": "choices",
        "value": {"choices": [choice.prediction]},
    }
    return {"data": data, "predictions": [{"score": choice.confidence, "result": [result]}]}
