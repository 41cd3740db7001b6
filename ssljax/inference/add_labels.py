"""Adds labels given by users to a split: writes a new `split.json` for training."""

import csv
import io
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ssljax.data.datasets import Dataset
from ssljax.data.splits import Split
from ssljax.data.streaming import StreamedDataset
from ssljax.errors import UsageError
from ssljax.inference.predict import readable
from ssljax.spreadsheet import original

_NAMED = 3  # examples per message


def read(path: Path) -> dict[str, set[str]]:
    """Reads a file's labels by image name: a CSV with the columns `file` and `label`, or Label
    Studio's JSON export. Images without a label are omitted.

    Raises:
      UsageError: the file cannot be read, or has no labels.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        pairs = _from_json(json.loads(text)) if path.suffix == ".json" else _from_csv(text)
        labels: dict[str, set[str]] = defaultdict(set)
        for file, label in pairs:
            if label:
                labels[file].add(label)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, csv.Error) as error:
        raise UsageError(
            f"--labels={path} cannot be read: {' '.join(str(error).split())}; allowed: a CSV with "
            "the columns file and label, or Label Studio's JSON export"
        ) from error
    if not labels:
        raise UsageError(f"--labels={path} holds no label: its column label is empty")
    return dict(labels)


def _from_csv(text: str) -> Iterator[tuple[str, str]]:
    rows = csv.DictReader(io.StringIO(text, newline=""))
    if missing := {"file", "label"} - {*(rows.fieldnames or [])}:
        raise ValueError(f"it has no column {' and no column '.join(sorted(missing))}")
    for row in rows:
        yield original(row["file"]), original((row["label"] or "").strip())


def _from_json(tasks: Any) -> Iterator[tuple[str, str]]:
    """Yields the choices in every annotation of Label Studio's tasks that was not skipped."""
    for task in tasks:
        for annotation in task.get("annotations", []):
            if annotation.get("was_cancelled"):
                continue
            for result in annotation["result"]:
                if result["type"] == "choices":
                    for choice in result["value"]["choices"]:
                        yield task["data"]["file"], choice


def add(
    data: Dataset | StreamedDataset, split: Split, labels: Mapping[str, set[str]]
) -> tuple[Split, dict[int, int]]:
    """Returns the split with more labelled images, and the new images' classes by number.

    Raises:
      UsageError: a class is unknown, a label contradicts another one or the data set's, or a file
        does not exist or is for validation. The message has one line per kind, with the first
        examples.
    """
    numbers = {readable(name): number for number, name in enumerate(data.names())}
    classes = {name: number for number, name in enumerate(data.class_names)}
    labeled, valid = set(split.labeled.tolist()), set(split.valid.tolist())
    problems: dict[str, list[str]] = defaultdict(list)
    found: dict[int, int] = {}
    for file, given in labels.items():
        unknown = sorted(given - set(classes))
        number = numbers.get(file)
        if unknown:
            problems["classes that the run does not have"].append(f"{unknown[0]} of {file}")
        elif len(given) > 1:
            problems["images with several labels"].append(f"{file}: {', '.join(sorted(given))}")
        elif number is None:
            problems["files that are not training images"].append(file)
        elif number in valid:
            problems["validation images, which must not be trained on"].append(file)
        elif number in labeled and data.labels[number] != classes[next(iter(given))]:
            problems["images that have another label already"].append(file)
        else:
            found[number] = classes[next(iter(given))]
    if problems:
        raise UsageError("; ".join(_lines(problems, data.class_names)))
    new = {number: c for number, c in found.items() if number not in labeled}
    more = np.union1d(split.labeled, np.array([*new], np.int64))
    return split._replace(labeled=more), new


def _lines(problems: Mapping[str, list[str]], classes: Iterable[str]) -> Iterator[str]:
    for kind, examples in problems.items():
        more = ", …" if len(examples) > _NAMED else ""
        allowed = f" (allowed: {', '.join(classes)})" if kind.startswith("classes") else ""
        yield f"--labels has {len(examples)} {kind}: {', '.join(examples[:_NAMED])}{more}{allowed}"
