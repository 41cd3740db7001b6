"""Data sets of known sizes without their images, which suffice to compile training on them.

Every image is black, and takes no memory; classes take turns.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from ssljax.data import imagenet_folds, splits
from ssljax.data.datasets import Dataset
from ssljax.data.image_index import ImageIndex
from ssljax.data.load import split_of
from ssljax.data.splits import Split
from ssljax.data.streaming import StreamedDataset
from ssljax.errors import UsageError


class Shape(NamedTuple):
    """The sizes of a data set."""

    images: int  # number of training images, with and without a label
    height: int
    width: int
    channels: int
    classes: int
    labels: int | None = None  # number of images with a label; None: all
    test_images: int = 10_000


_CIFAR = Shape(50_000, 32, 32, 3, 10)
_SVHN = Shape(604_388, 32, 32, 3, 10, test_images=26_032)
SHAPES: Mapping[str, Shape] = MappingProxyType(
    {
        "digits": Shape(1_437, 8, 8, 1, 10, test_images=360),
        "cifar10": _CIFAR,
        "cifar10_open": _CIFAR._replace(classes=6, labels=30_000, test_images=6_000),
        "cifar100": _CIFAR._replace(classes=100),
        "cifar100_open20": _CIFAR._replace(classes=20, labels=10_000, test_images=2_000),
        "cifar100_open50": _CIFAR._replace(classes=50, labels=25_000, test_images=5_000),
        "cifar100_open80": _CIFAR._replace(classes=80, labels=40_000, test_images=8_000),
        "svhn": _SVHN,
        "svhn_noextra": _SVHN._replace(images=73_257),
        "stl10": Shape(105_000, 96, 96, 3, 10, labels=5_000, test_images=8_000),
    }
)
_IMAGENET = Shape(1_281_167, 224, 224, 3, 1000, test_images=50_000)
_MOST = 1 << 31  # largest number in a shape


def parse(values: Sequence[str]) -> Shape | None:
    """Parses `--data_shape`: images,height,width,channels,classes; empty: None.

    Raises:
      UsageError: the values have another form.
    """
    if not values:
        return None
    numbers = [int(value) for value in values if value.strip().isdecimal()]
    if not len(values) == len(numbers) == 5 or not all(0 < n < _MOST for n in numbers):
        raise UsageError(
            f"--data_shape is {','.join(values)}; allowed: images,height,width,channels,classes, "
            "as 50000,32,32,3,10"
        )
    return Shape(*numbers)


def load(
    dataset: str,
    *,
    unlabeled: str,
    balanced: bool,
    image_size: int,
    stream: bool,
    shape: Shape | None = None,
) -> tuple[Dataset | StreamedDataset, Split]:
    """Returns black images and their split, as `load.load` does for real ones.

    Args:
      dataset, unlabeled, image_size, stream: see `load.load`.
      balanced: whether all classes have equally many labelled images.
      shape: sizes of the data; None: those of the data set, if they are known.

    Raises:
      UsageError: the sizes are not known.
    """
    if fold := imagenet_folds.parse(dataset):
        images = _streamed(shape or _IMAGENET, image_size)
        labeled = imagenet_folds.draw(*fold, images.labels)
        return images, Split(labeled, np.arange(len(images.labels)), np.arange(0))
    name = splits.parse(dataset)
    shape = shape or SHAPES.get(name.dataset)
    if shape is None:
        raise UsageError(
            f"config.dataset is {dataset!r}, whose sizes are not known without reading it; allowed "
            f"with --mode=compile: {', '.join(SHAPES)}, imagenet, or any with "
            "--data_shape=images,height,width,channels,classes"
        )
    data = _streamed(shape, image_size) if stream else _in_memory(shape)
    return data, split_of(name, data, unlabeled, balanced)


def _in_memory(shape: Shape) -> Dataset:
    sides = shape.height, shape.width, shape.channels
    images, test_images = (
        np.broadcast_to(np.uint8(0), (count, *sides)) for count in (shape.images, shape.test_images)
    )
    names = tuple(map(str, range(shape.classes)))
    labels, test_labels = _labels(shape)
    data = Dataset(images, labels, test_images, test_labels, shape.classes, names)
    return data._replace(folds={1000: lambda seed: np.arange(1000)} if shape.labels else {})


def _streamed(shape: Shape, image_size: int) -> StreamedDataset:
    labels, test_labels = _labels(shape)
    names = tuple(map(str, range(shape.classes)))
    return StreamedDataset(
        _index(labels), _index(test_labels), shape.classes, names, image_size or shape.height
    )


def _labels(shape: Shape) -> tuple[np.ndarray, np.ndarray]:
    """Returns the labels of the training images, -1: none, and of the test images, int64."""
    labels = np.arange(shape.images) % shape.classes
    labels[shape.labels if shape.labels is not None else shape.images :] = -1
    return labels, np.arange(shape.test_images) % shape.classes


def _index(labels: np.ndarray) -> ImageIndex:
    """Returns an index of images in one file that does not exist."""
    nothing = np.broadcast_to(np.int64(0), len(labels))
    return ImageIndex(np.array(["-"]), nothing, nothing, nothing, labels, nothing)
