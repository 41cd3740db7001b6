"""`split.json`: the labelled, unlabelled and validation images, in an editable file.

    {
      "hash": "9f3c…",             optional when written by hand
      "labeled": [12, 55, …],      the labelled images
      "unlabeled": [0, 1, 2, …],   the images trained on without their labels
      "valid": [7, 8, …]           the validation images
    }

Numbers count the training records from 0: for CIFAR, SVHN and STL-10 in the order of the published
files (SVHN: train, extra; STL-10: train, unlabeled), for a folder as sorted by `folder.py`, for an
.npz file as in `npz.py`. The order of a list is kept. `unlabeled` may include `labeled`, as in
FixMatch. The names of the image files are hashed too, because a photo that is added or moved later
gives the numbers another meaning:

      "names_hash": "c5e1…"        optional when written by hand

If users added labels that the data set does not have, the file has them, too:

      "parent": "41d0…",           the hash of the split that labels were added to
      "labels": {"204": "cat"},    numbers of training images, and the names of their classes
      "labels_hash": "b2e7…"       optional when written by hand

In a run directory, it also has the number of labelled images per class, for code that does not
read the data:

      "class_counts": [4, 4, 2]
"""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ssljax.data.labels import with_added
from ssljax.data.splits import Split, fingerprint
from ssljax.errors import UsageError
from ssljax.storage.files import parse_json


class OtherImages(UsageError):
    """A file was written for other images than those that are there."""


def record(
    split: Split,
    labels: Mapping[int, str] | None = None,
    parent: str = "",
    class_counts: Sequence[int] | np.ndarray = (),
    *,
    names: Sequence[str],
) -> dict[str, Any]:
    """Returns the file's content for `split`.

    Args:
      names: of all training images, in their order: their files, or their numbers.
      labels: class names of training images without a label in the data set, by image number.
      parent: the hash of the split that these labels were added to.
      class_counts: labelled images per class; (): omitted.
    """
    lists = {name: indices.tolist() for name, indices in split._asdict().items()}
    found: dict[str, Any] = {"hash": fingerprint(split), **lists}
    found["names_hash"] = _names_hash(names)
    if len(class_counts):
        found["class_counts"] = [int(count) for count in class_counts]
    if labels:
        given = {str(number): name for number, name in sorted(labels.items())}
        found |= {"parent": parent, "labels": given, "labels_hash": _labels_hash(given)}
    return found


def _names_hash(names: Sequence[str]) -> str:
    # Without folders, whose form depends on whether the images are streamed. A photo that is moved
    # and keeps its place in the order keeps its number.
    text = "\n".join(os.path.basename(name) for name in names).encode(errors="surrogateescape")
    return hashlib.sha256(text).hexdigest()[:16]


def _labels_hash(labels: Mapping[str, str]) -> str:
    text = json.dumps(dict(labels), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def read(
    path: Path, labels: np.ndarray, class_names: Sequence[str], names: Sequence[str]
) -> tuple[Split, dict[int, str]]:
    """Reads a file for training records with these labels `[N]` (-1: none) and names.

    Returns:
      The split, and the labels that the file adds.

    Raises:
      UsageError: the file cannot be read, was changed, or is of other records.
    """
    try:
        found = dict(parse_json(path.read_bytes()))
        _require_names(path, found, names)
        split = Split(*(_indices(path, name, found, len(labels)) for name in Split._fields))
        given = {str(k): str(v) for k, v in dict(found.get("labels", {})).items()}
    except (OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(
            f"config.split_file {path} cannot be read: {type(error).__name__} {error}"
        ) from error
    added = _added(path, given, len(labels), class_names)
    known = with_added(labels, added, class_names)
    if not len(split.labeled) or known[split.labeled].min() < 0:
        raise UsageError(
            f"config.split_file {path}: labeled must name an image, and each must have a label"
        )
    for what, name, expected in (
        ("lists", "hash", fingerprint(split)),
        ("labels", "labels_hash", _labels_hash(given)),
    ):
        if found.get(name, expected) != expected:
            raise UsageError(
                f"config.split_file {path}: its {what} were changed after its {name} "
                f"{found[name]} was written; allowed: {expected}, or no {name}"
            )
    return split, added


def _require_names(path: Path, found: Mapping[str, Any], names: Sequence[str]) -> None:
    expected = _names_hash(names)
    if found.get("names_hash", expected) != expected:
        raise OtherImages(
            f"config.split_file {path} was written for other images: some were added, removed, "
            "renamed or moved since, so that its numbers mean others now; allowed: the images as "
            "they were, or a file that is written anew"
        )


def _added(
    path: Path, given: Mapping[str, str], images: int, class_names: Sequence[str]
) -> dict[int, str]:
    for number, name in given.items():
        if not number.isdigit() or int(number) >= images or name not in class_names:
            raise UsageError(
                f"config.split_file {path}: labels has {number}: {name!r}; allowed: images 0 to "
                f"{images - 1}, and the classes {', '.join(class_names)}"
            )
    return {int(number): name for number, name in given.items()}


def _indices(path: Path, name: str, found: Any, size: int) -> np.ndarray:
    indices = np.array(found[name])
    if not len(indices):
        return np.zeros(0, np.int64)
    if indices.dtype.kind not in "iu" or indices.ndim != 1:
        raise UsageError(f"config.split_file {path}: {name} is not a list of whole numbers")
    if indices.min() < 0 or indices.max() >= size or len(np.unique(indices)) < len(indices):
        raise UsageError(
            f"config.split_file {path}: {name} has a number twice, or one outside 0 to {size - 1}"
        )
    return indices.astype(np.int64)
