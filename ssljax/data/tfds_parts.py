"""The splits, images and labels that are read from a TFDS data set. Needs no TensorFlow."""

import re
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ssljax.data import spellings
from ssljax.data.labels import count_classes
from ssljax.errors import UsageError
from ssljax.log import LOG, some
from ssljax.storage.files import parse_json


def require_own_features(name: str, data_dir: str) -> None:
    """Checks that the features of a prepared data set are TFDS's classes.

    TFDS imports the modules that a prepared data set names, which may be untrusted.

    Raises:
      UsageError: another class is named.
    """
    if "://" in data_dir:
        return  # only TFDS can read it
    for path in sorted(Path(data_dir, re.split("[/:]", name)[0]).rglob("features.json")):
        try:
            found = parse_json(path.read_bytes())
        except (OSError, ValueError) as error:
            raise UsageError(f"{path} cannot be read: {error}") from error
        for kind in _kinds(found):
            if "." in kind and not kind.startswith("tensorflow_datasets."):
                raise UsageError(f"{path} names {kind!r}; allowed: classes of tensorflow_datasets")


def _kinds(tree: Any) -> Iterator[str]:
    """Yields the classes that a features.json names, at any depth."""
    parts = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ()
    for part in parts:
        yield from _kinds(part)
    for key in ("pythonClassName", "type") if isinstance(tree, dict) else ():
        if isinstance(tree.get(key), str):
            yield tree[key]


class Splits(NamedTuple):
    """The splits that are read from a data set."""

    train: tuple[str, ...]  # their records, concatenated, are the training records
    test: tuple[str, ...]  # the first of these with labels provides the test records
    unlabeled: tuple[str, ...] = ()  # further training records, whose labels are not read


def usual(there: Collection[str]) -> Splits:
    """Returns the splits that are read by default."""
    found = spellings.choose(there)
    test = tuple(found[part] for part in ("test", "valid") if part in found)
    unlabeled = (found["unlabeled"],) if "unlabeled" in found else ()
    return Splits((found.get("train", "train"),), test, unlabeled)


def first_labeled(splits: Collection[str], labels: Callable[[str], np.ndarray]) -> str | None:
    """Returns the first split with labels; None: there is none."""
    return next((split for split in splits if np.any(labels(split) >= 0)), None)


def not_read(there: Collection[str], chosen: Splits, test: str | None) -> np.ndarray:
    """Returns the splits that are not read, for messages."""
    others = [split for split in there if split not in (*chosen.train, *chosen.unlabeled, test)]
    before = chosen.test[: chosen.test.index(test)] if test else chosen.test
    return np.array([s + " (without labels)" if s in before else s for s in sorted(others)], str)


def tell_of_others(name: str, others: Collection[str]) -> None:
    """Logs the splits that are not read."""
    if others:
        LOG.info(f"note: tfds:{name} has splits that are not read: {some(others)}")


def require_splits(name: str, builder: Any, splits: Splits) -> None:
    """Raises UsageError if a split with training records does not exist."""
    for split in (*splits.train, *splits.unlabeled):
        if split not in builder.info.splits:
            raise UsageError(
                f"config.dataset {name}: TFDS has no split {split!r}; there are: "
                f"{', '.join(sorted(builder.info.splits))}"
            )


def require_labeled_images(name: str, features: Any) -> None:
    """Raises UsageError unless each record has an 8-bit image and a class number."""
    if not {"image", "label"} <= set(features):
        raise UsageError(
            f"config.dataset {name} has no image and label; it has: {', '.join(sorted(features))}"
        )
    label, image = features["label"], features["image"]
    if label.shape != () or np.dtype(label.np_dtype).kind not in "biu":
        raise UsageError(
            f"config.dataset {name} has labels of the kind {type(label).__name__}; allowed: one "
            "class or whole number per image"
        )
    channels = image.shape[-1] if isinstance(image.shape, tuple) and len(image.shape) == 3 else 0
    if channels not in (1, 3) or image.np_dtype != np.uint8:
        found = f"{np.dtype(image.np_dtype)} images of {channels} channels"
        if not channels:
            found = f"images of the kind {type(image).__name__} {image.shape}"
        raise UsageError(f"config.dataset {name} has {found}; allowed: uint8, 1 or 3 channels")


def class_names(name: str, features: Any, train: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Returns the names of the classes `[C]`, or their numbers.

    Args:
      train: labels of the training records; if the number of classes is not recorded, each number
        up to the largest must occur.
      test: labels of the test records.

    Raises:
      UsageError: there is no label, or a label is out of range.
    """
    label = features["label"]
    try:
        count = getattr(label, "num_classes", None) or count_classes(train)
    except ValueError as error:
        raise UsageError(f"config.dataset {name}: train: {error}") from error
    for labels in (train, test):
        outside = labels[(labels < -1) | (labels >= count)]
        if len(outside):
            raise UsageError(
                f"config.dataset {name} has the label {outside[0]}; allowed: 0 to {count - 1}, and "
                "-1 for none"
            )
    return np.array(getattr(label, "names", None) or [str(c) for c in range(count)])
