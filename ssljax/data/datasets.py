"""Data sets in memory, one function each: uint8 images and their labels in original order.

A function accepts any of these arguments: `where`, the part of the name after a colon; `data_dir`,
the directory of prepared data sets, "" for the default; `image_size`, the side in pixels that
images are resized to, 0 to keep their size.
"""

import importlib.util
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from ssljax import paths
from ssljax.data import folder as folder_source
from ssljax.data import npz as npz_source
from ssljax.data import stl10_folds, tfds_source
from ssljax.data.arrays import Arrays
from ssljax.data.labels import with_added as _with_added
from ssljax.data.tfds_parts import Splits

_TRAIN_TEST = Splits(("train",), ("test",))
# The superclass, of 20, of each CIFAR-100 class in order.
_SUPERCLASSES = (
    4, 1, 14, 8, 0, 6, 7, 7, 18, 3, 3, 14, 9, 18, 7, 11, 3, 9, 7, 11,
    6, 11, 5, 10, 7, 6, 13, 15, 3, 15, 0, 11, 1, 10, 12, 14, 16, 9, 11, 5,
    5, 19, 8, 8, 15, 13, 14, 17, 18, 10, 16, 4, 17, 4, 2, 0, 17, 4, 18, 17,
    10, 3, 2, 12, 12, 16, 12, 1, 9, 19, 2, 10, 0, 1, 16, 12, 9, 13, 15, 13,
    16, 19, 2, 4, 6, 19, 5, 5, 8, 19, 18, 1, 2, 15, 6, 0, 17, 8, 14, 13,
)  # fmt: skip
Batches = Iterator[tuple[np.ndarray, np.ndarray]]  # uint8 [n, H, W, C], int64 [n]


class Dataset(NamedTuple):
    """Training and test images with their labels."""

    images: np.ndarray  # [N, H, W, C] uint8, the training records in original order
    labels: np.ndarray  # [N] int64, 0..num_classes-1; -1: no label
    test_images: np.ndarray  # [T, H, W, C] uint8; T can be 0
    test_labels: np.ndarray  # [T] int64
    num_classes: int
    class_names: tuple[str, ...]
    num_valid: int = 0  # number of images, the last of `images`, used for validation only
    files: tuple[str, ...] = ()  # paths of `images`, then `test_images`, in their folder; or ()
    # Labels of training images that the data set itself does not have, as class names.
    added_labels: Mapping[int, str] = MappingProxyType({})
    # Published labelled sets by size: functions from the seed to the labelled images' indices.
    folds: Mapping[int, Callable[[int], np.ndarray]] = MappingProxyType({})

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(height, width, channels)."""
        _, height, width, channels = self.images.shape
        return height, width, channels

    def with_labels(self, added: Mapping[int, str]) -> "Dataset":
        """Returns the same images with labels that users added: class names by image number."""
        known = _with_added(self.labels, added, self.class_names)
        return self._replace(labels=known, added_labels=added)

    def names(self, part: str = "train") -> list[str]:
        """Returns a name per image of `train` or `test`: its file, otherwise its number from 0."""
        split = len(self.images)
        if not self.files:
            return [str(i) for i in range(split if part == "train" else len(self.test_images))]
        return [*(self.files[:split] if part == "train" else self.files[split:])]

    def pick(self, indices: np.ndarray) -> np.ndarray:
        """Returns some training images for display, uint8 `[n, H, W, C]`."""
        return self.images[indices]

    def batches(self, indices: np.ndarray, size: int) -> Batches:
        """Yields some training images and their labels, `size` at a time, for evaluation."""
        for i in range(0, len(indices), size):
            yield self.images[indices[i : i + size]], self.labels[indices[i : i + size]]

    def test_batches(self, indices: np.ndarray, size: int) -> Batches:
        """Yields test images as `batches` does training images."""
        for i in range(0, len(indices), size):
            yield self.test_images[indices[i : i + size]], self.test_labels[indices[i : i + size]]


def digits() -> Dataset:
    """The 1,797 handwritten 8×8 digits that ship inside scikit-learn (UCI optdigits).

    Their 17 grey levels are scaled to 0..255. 360 images are the test set: a proportional share of
    each class, evenly spaced in original order, independent of the seed.
    """
    # `sklearn.datasets.load_digits` reads the same file, but takes a second to import.
    package = Path(importlib.util.find_spec("sklearn").origin).parent  # type: ignore[union-attr, arg-type]
    file = package / "datasets" / "data" / "digits.csv.gz"
    table = np.loadtxt(file, delimiter=",")
    levels, labels = table[:, :-1], table[:, -1].astype(np.int64)
    images = np.round(levels * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8, 1)
    test = _stratified(labels, 360)
    train = np.setdiff1d(np.arange(len(labels)), test)
    names = tuple("0123456789")
    return Dataset(images[train], labels[train], images[test], labels[test], 10, names)


def cifar10(data_dir: str) -> Dataset:
    """CIFAR-10: 50,000 training and 10,000 test images, 32×32, in the order of the batch files."""
    return _dataset(tfds_source.read("cifar10", _TRAIN_TEST, data_dir=data_dir))


def cifar100(data_dir: str) -> Dataset:
    """CIFAR-100 with the 100 fine labels, otherwise like CIFAR-10."""
    return _dataset(tfds_source.read("cifar100", _TRAIN_TEST, data_dir=data_dir))


def digits_open() -> Dataset:
    """The digits 2 to 7; the other digits are training images without labels."""
    return _with_foreign(digits(), range(2, 8))


def cifar10_open(data_dir: str) -> Dataset:
    """CIFAR-10's animals, classes 2 to 7; the four vehicles are training images without labels.

    This follows `semilearn/datasets/cv_datasets/cifar.py` of nukezil/IOMatch. The test set has no
    images of the other classes.
    """
    return _with_foreign(cifar10(data_dir), range(2, 8))


def _cifar100_open(data_dir: str, *, superclasses: int) -> Dataset:
    """The classes of CIFAR-100's first superclasses, five each; see `cifar10_open`."""
    data = cifar100(data_dir)
    known = np.flatnonzero(np.array(_SUPERCLASSES) < superclasses)
    return _with_foreign(data, known)


cifar100_open20 = partial(_cifar100_open, superclasses=4)
cifar100_open50 = partial(_cifar100_open, superclasses=10)
cifar100_open80 = partial(_cifar100_open, superclasses=16)


def _with_foreign(data: Dataset, known: Iterable[int]) -> Dataset:
    """Keeps only some classes of a data set; training images of the others become unlabelled."""
    known = list(known)
    number = np.full(data.num_classes, -1)
    number[known] = np.arange(len(known))
    kept = number[data.test_labels] >= 0
    return data._replace(
        labels=number[data.labels],
        test_images=data.test_images[kept],
        test_labels=number[data.test_labels[kept]],
        num_classes=len(known),
        class_names=tuple(data.class_names[c] for c in known),
    )


def svhn(data_dir: str) -> Dataset:
    """SVHN with its extra images: 73,257 + 531,131 training and 26,032 test images, 32×32."""
    return _svhn(("train", "extra"), data_dir)


def svhn_noextra(data_dir: str) -> Dataset:
    """SVHN without its extra images."""
    return _svhn(("train",), data_dir)


def _svhn(train: tuple[str, ...], data_dir: str) -> Dataset:
    """SVHN with classes renumbered: the published scripts count digits 1, 2, …, 9, 0; TFDS 0, …, 9.

    The numbers matter, because labelled images are chosen from the classes in order of number.
    """
    arrays = tfds_source.read("svhn_cropped", Splits(train, ("test",)), data_dir=data_dir)
    for name in ("labels", "test_labels"):
        arrays[name] = (arrays[name] - 1) % 10
    return _dataset(arrays | {"class_names": np.array(list("1234567890"))})


def stl10(data_dir: str) -> Dataset:
    """STL-10: 5,000 labelled and 100,000 other training images, 8,000 test images, 96×96.

    The name's 1,000 labels are one of the ten published folds. With 5,000 labels, all labelled
    images are used. For that case the published `create_split.py` counts the other images as class
    0 and draws most "labelled" images of that class from them; we do not reproduce this.
    """
    splits = Splits(("train",), ("test",), unlabeled=("unlabelled",))
    arrays = tfds_source.read("stl10", splits, data_dir=data_dir, keyed_by_index=True)
    fold = partial(stl10_folds.read, data_dir=data_dir, labels=arrays["labels"])
    return _dataset(arrays)._replace(folds={1000: fold})


def tfds(where: str, data_dir: str, image_size: int) -> Dataset:
    """Any TFDS data set with `image`, `label` and a split `train`: `name[/config][:version]`.

    Its test images are those of `test`, or those of `validation` if there is no `test` or it has no
    labels. The images of a split `unlabelled` are training images without labels.
    """
    return _dataset(tfds_source.read(where, None, data_dir=data_dir, image_size=image_size))


def folder(where: str, image_size: int) -> Dataset:
    """The user's images in folders: see `folder.py`."""
    arrays, num_valid = folder_source.read(_path(where), image_size=image_size)
    files = tuple(arrays.pop("files").tolist())
    return _dataset(arrays)._replace(num_valid=num_valid, files=files)


def npz(where: str) -> Dataset:
    """The user's images in an .npz file: see `npz.py`."""
    arrays, num_valid = npz_source.read(_path(where))
    return _dataset(arrays)._replace(num_valid=num_valid)


def _path(where: str) -> Path:
    return Path(paths.expand(where, "config.dataset"))


def _dataset(arrays: Arrays) -> Dataset:
    names = tuple(arrays["class_names"].tolist())
    return Dataset(
        images=arrays["images"],
        labels=arrays["labels"],
        test_images=arrays["test_images"],
        test_labels=arrays["test_labels"],
        num_classes=len(names),
        class_names=names,
    )


def _stratified(labels: np.ndarray, size: int) -> np.ndarray:
    """Returns `size` indices, proportional to class sizes (largest remainders), evenly spaced."""
    quota = np.bincount(labels) * size / len(labels)
    take = np.floor(quota).astype(int)
    take[np.argsort(take - quota, kind="stable")[: size - take.sum()]] += 1
    chosen = []
    for c, n in enumerate(take):
        records = np.flatnonzero(labels == c)
        chosen.append(records[(np.arange(n) * len(records)) // n])
    return np.sort(np.concatenate(chosen))
