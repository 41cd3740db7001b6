"""The user's images in an .npz file, as written by `numpy.savez`.

    train_images                  uint8 [N, H, W, C] or [N, H, W], C = 1 or 3
    train_labels                  integers [N] or [N, 1], 0..C-1, each class present
    unlabeled_images              like train_images, optional
    valid_images, valid_labels    validation images, optional
    test_images, test_labels      optional

Other spellings of the part names are accepted, too (`spellings.py`); `images` and `labels` mean
those of train. Other arrays are named in a warning and not read.
"""

from pathlib import Path

import numpy as np

from ssljax.data import arrays as npz_file
from ssljax.data import spellings
from ssljax.data.arrays import Arrays
from ssljax.data.labels import count_classes
from ssljax.errors import UsageError
from ssljax.log import LOG, some

_NAMES = (
    "train_images", "train_labels", "unlabeled_images", "valid_images", "valid_labels",
    "test_images", "test_labels",
)  # fmt: skip


def read(path: Path) -> tuple[Arrays, int]:
    """Reads an entire file.

    Returns:
      Arrays: images `[N, H, W, C]` uint8 of train, unlabeled and valid, labels `[N]` int64 (-1:
      none), test_images, test_labels, class_names; and the number of validation images, the last
      ones.

    Raises:
      UsageError: the file is damaged or has other contents; the message names the array.
    """
    arrays = _load(path)
    for name in ("valid", "test"):
        if (f"{name}_images" in arrays) != (f"{name}_labels" in arrays):
            raise UsageError(f"{path} has only one of {name}_images and {name}_labels")
    train = _images(path, "train_images", arrays["train_images"])
    labels = _labels(path, "train_labels", arrays["train_labels"], len(train))
    try:
        classes = count_classes(labels)
    except ValueError as error:
        raise UsageError(f"{path}: train_labels: {error}") from error

    def part(name: str) -> tuple[np.ndarray, np.ndarray]:
        images = _images(path, f"{name}_images", arrays.get(f"{name}_images", train[:0]), train)
        if f"{name}_labels" not in arrays:
            return images, np.full(len(images), -1)
        given = arrays[f"{name}_labels"]
        return images, _labels(path, f"{name}_labels", given, len(images), classes)

    (unlabeled, none), (valid, valid_labels) = part("unlabeled"), part("valid")
    test, test_labels = part("test")
    read = {
        "images": np.concatenate([train, unlabeled, valid]),
        "labels": np.concatenate([labels, none, valid_labels]),
        "test_images": test,
        "test_labels": test_labels,
        "class_names": np.array([str(c) for c in range(classes)]),
    }
    return read, len(valid)


def _load(path: Path) -> Arrays:
    """Reads a file's arrays, by the names used here."""
    there = npz_file.names(path)
    chosen = spellings.choose(there, _meaning)
    for name in ("train_images", "train_labels"):
        if name not in chosen:
            raise UsageError(
                f"{path} has no {name}; it has: {some(there, 20) or 'nothing'}; allowed: "
                f"{', '.join(_NAMES)}"
            )
    if left := [name for name in there if name not in chosen.values()]:
        LOG.warning(f"warning: {path} has arrays that are not read: {some(left)}")
    arrays = npz_file.read(path, chosen.values())
    return {ours: arrays[name] for ours, name in chosen.items()}


def _meaning(name: str) -> str | None:
    """Returns the name used here for an array: `val_images` and `images_val` are `valid_images`."""
    words = name.lower().split("_")
    for kind in ("images", "labels"):
        if kind in words:
            words.remove(kind)
            part = spellings.part_of("_".join(words or ["train"]))
            ours = f"{part}_{kind}"
            return ours if ours in _NAMES else None
    return None


def _images(
    path: Path, name: str, images: np.ndarray, like: np.ndarray | None = None
) -> np.ndarray:
    """Returns uint8 images `[N, H, W, C]` of the size of `like`; without `like`, at least one."""
    if images.ndim == 3:
        images = images[..., None]
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] not in (1, 3):
        found = f"{images.dtype} {list(images.shape)}"
        raise UsageError(f"{path}: {name} is {found}; allowed: uint8 [N, H, W, 1 or 3]")
    if like is None and not images.size:
        raise UsageError(f"{path}: {name} is empty, {list(images.shape)}")
    if like is not None and images.shape[1:] != like.shape[1:]:
        raise UsageError(
            f"{path}: {name} is {list(images.shape)}; allowed: images of {list(like.shape[1:])}, "
            "as train_images"
        )
    return images


def _labels(
    path: Path, name: str, labels: np.ndarray, count: int, classes: int | None = None
) -> np.ndarray:
    """Returns `count` int64 labels `[N]` in 0..classes-1; None: classes are inferred."""
    if labels.shape == (count, 1):
        labels = labels[:, 0]
    if labels.shape != (count,):
        raise UsageError(
            f"{path}: {name} is {list(labels.shape)}; allowed: [{count}], one label per image"
        )
    whole = np.zeros(count, bool)
    if labels.dtype.kind in "iuf":
        whole = np.isfinite(labels) & (labels == np.round(labels))
    if not whole.all():
        bad = f"{labels[~whole][0]} ({labels.dtype})"
        raise UsageError(f"{path}: {name} holds {bad}; allowed: whole numbers")
    top = np.iinfo(np.int64).max if classes is None else classes - 1
    outside = labels[(labels < 0) | (labels > top)]
    if len(outside):
        allowed = "from 0 up" if classes is None else f"0 to {top}, the classes of train_labels"
        raise UsageError(f"{path}: {name} holds {outside[0]}; allowed: {allowed}")
    return labels.astype(np.int64)
