"""Images of one's own in an .npz file, as `numpy.savez` writes it.

train_images          uint8 [N, H, W, C] or [N, H, W], C = 1 or 3
train_labels          integers [N], 0..C-1, each class present
unlabeled_images      like train_images, optional
test_images, test_labels    optional
"""

import zipfile
import zlib
from pathlib import Path

import numpy as np

from ssljax.data.cache import Arrays
from ssljax.errors import UsageError

_NAMES = ("train_images", "train_labels", "unlabeled_images", "test_images", "test_labels")


def read(path: Path) -> Arrays:
    """Reads a file whole.

    Returns:
      images `[N, H, W, C]` uint8 of train and unlabeled, labels `[N]` int64 (-1: none),
      test_images, test_labels, class_names.

    Raises:
      UsageError: the file is damaged or holds something else; names the array.
    """
    arrays = _load(path)
    for name in ("train_images", "train_labels"):
        if name not in arrays:
            raise UsageError(f"{path} has no {name}; it has: {', '.join(arrays) or 'nothing'}")
    if ("test_images" in arrays) != ("test_labels" in arrays):
        raise UsageError(f"{path} has only one of test_images and test_labels")
    train = _images(path, "train_images", arrays["train_images"])
    labels = _labels(path, "train", arrays, None)
    classes = int(labels.max()) + 1
    if missing := sorted(set(range(classes)) - set(labels.tolist())):
        raise UsageError(f"{path}: train_labels has no image of class {missing[0]} of {classes}")
    none = train[:0]
    unlabeled = _images(path, "unlabeled_images", arrays.get("unlabeled_images", none), train)
    return {
        "images": np.concatenate([train, unlabeled]),
        "labels": np.concatenate([labels, np.full(len(unlabeled), -1)]),
        "test_images": _images(path, "test_images", arrays.get("test_images", none), train),
        "test_labels": _labels(path, "test", {"test_images": none, **arrays}, classes),
        "class_names": np.array([str(c) for c in range(classes)]),
    }


def _load(path: Path) -> Arrays:
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            return {name: file[name] for name in _NAMES if name in file.files}
    except (OSError, ValueError, EOFError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        # TypeError: a bare .npy is an array and no archive
        raise UsageError(f"{path} cannot be read as an .npz without pickles: {error}") from error


def _images(
    path: Path, name: str, images: np.ndarray, like: np.ndarray | None = None
) -> np.ndarray:
    """uint8 images `[N, H, W, C]`; of the size of `like`, or else at least one."""
    if images.ndim == 3:
        images = images[..., None]
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] not in (1, 3):
        found = f"{images.dtype} {list(images.shape)}"
        raise UsageError(f"{path}: {name} is {found}; allowed: uint8 [N, H, W, 1 or 3]")
    if like is None and not len(images):
        raise UsageError(f"{path}: {name} is empty")
    if like is not None and images.shape[1:] != like.shape[1:]:
        raise UsageError(
            f"{path}: {name} is {list(images.shape)}; allowed: images of {list(like.shape[1:])}, "
            "as train_images"
        )
    return images


def _labels(path: Path, part: str, arrays: Arrays, classes: int | None) -> np.ndarray:
    """int64 labels `[N]` of the part's images, in 0..classes-1; None: of as many as there are."""
    name, count = f"{part}_labels", len(arrays[f"{part}_images"])
    labels = arrays.get(name, np.zeros(0, np.int64))
    if labels.shape != (count,):
        raise UsageError(
            f"{path}: {name} is {list(labels.shape)}; allowed: [{count}], one label an image"
        )
    whole = np.zeros(count, bool)
    if labels.dtype.kind in "iuf":
        whole = np.isfinite(labels) & (labels == np.round(labels))
    if not whole.all():
        bad = f"{labels[~whole][0]} ({labels.dtype})"
        raise UsageError(f"{path}: {name} holds {bad}; allowed: whole numbers")
    labels = labels.astype(np.int64)
    top = int(labels.max(initial=0)) if classes is None else classes - 1
    outside = labels[(labels < 0) | (labels > top)]
    if len(outside):
        allowed = "from 0 up" if classes is None else f"0 to {top}, the classes of train_labels"
        raise UsageError(f"{path}: {name} holds {outside[0]}; allowed: {allowed}")
    return labels
