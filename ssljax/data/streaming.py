"""Streamed input for data sets that do not fit in memory, such as ImageNet.

The host decodes, crops and flips images with tf.data and sends uint8 images to the devices;
everything else runs there. The images of a step and their crops are a function of (seed, step), and
`image_index.py` locates any image directly. An interrupted run therefore continues with the same
batches without rereading earlier ones.
"""

import functools
import os
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from ssljax.data import crops, decoding
from ssljax.data.batches import RawBatch
from ssljax.data.datasets import Batches
from ssljax.data.image_index import ImageIndex
from ssljax.data.labels import with_added
from ssljax.data.splits import Split
from ssljax.errors import RunError, UsageError
from ssljax.log import LOG

_TOLERATED = 0.01  # fraction of the images that may be damaged
AT_ONCE = 64  # default batch size for inspecting images
_TRIED = 8  # images per part that are decoded before training starts


class StreamedDataset(NamedTuple):
    """Training and test images that are read on demand; see `datasets.Dataset`."""

    train_index: ImageIndex
    test_index: ImageIndex
    num_classes: int
    class_names: tuple[str, ...]
    image_size: int  # side in pixels of the crops
    num_valid: int = 0  # number of training images, the last ones, used for validation only
    folds: Mapping[int, Callable[[int], np.ndarray]] = MappingProxyType({})
    added_labels: Mapping[int, str] = MappingProxyType({})

    @property
    def labels(self) -> np.ndarray:
        """Labels of the training images, `[N]` int64, -1: none."""
        return self.train_index.labels

    @property
    def test_labels(self) -> np.ndarray:
        """Labels of the test images, `[T]` int64."""
        return self.test_index.labels

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(height, width, channels)."""
        return self.image_size, self.image_size, 3

    def with_labels(self, added: Mapping[int, str]) -> "StreamedDataset":
        """Returns the data with added labels, as `Dataset.with_labels` does."""
        known = with_added(self.labels, added, self.class_names)
        index = self.train_index._replace(labels=known)
        return self._replace(train_index=index, added_labels=added)

    def names(self, part: str = "train") -> list[str]:
        """Returns names as `Dataset.names` does."""
        index = self.train_index if part == "train" else self.test_index
        if not index.are_files:
            return [str(name) for name in index.names]
        both = [*self.train_index.files, *self.test_index.files]
        above = os.path.commonpath([os.path.dirname(file) for file in both])
        return [os.path.relpath(file, above) for file in index.files[index.file_index]]

    def pick(self, indices: np.ndarray) -> np.ndarray:
        """Returns training images for display, uint8 `[n, H, W, C]`; damaged ones are omitted."""
        batches = _evaluation(self.train_index, indices, AT_ONCE, self.image_size, tolerated=1)
        return np.concatenate([images for images, _ in batches])

    def batches(self, indices: np.ndarray, size: int) -> Batches:
        """Yields central crops of some training images and their labels, `size` at a time."""
        return _evaluation(self.train_index, indices, size, self.image_size)

    def test_batches(self, indices: np.ndarray, size: int) -> Batches:
        """Yields test images as `batches` does training images."""
        return _evaluation(self.test_index, indices, size, self.image_size)


def batch_like(sizes: tuple[int, int], image_shape: tuple[int, int, int]) -> RawBatch:
    """Returns a batch of labels and black images, which take no memory.

    Args:
      sizes: labelled and unlabelled images; 0 unlabelled: none.
    """

    def images(size: int) -> np.ndarray:
        return np.broadcast_to(np.uint8(0), (size, *image_shape))

    def numbers(size: int) -> np.ndarray:
        return np.zeros(size, np.int32)

    labeled, unlabeled = sizes
    raw = RawBatch(images(labeled), numbers(labeled), numbers(labeled))
    if not unlabeled:
        return raw
    return RawBatch(*raw[:3], images(unlabeled), numbers(unlabeled), numbers(unlabeled))


def batches(
    data: StreamedDataset,
    split: Split,
    *,
    seed: int,
    start: int,
    stop: int,
    sizes: tuple[int, int],
    rows: tuple[np.ndarray, np.ndarray] | None = None,
) -> Iterator[RawBatch]:
    """Yields the host batches of training steps `start` to `stop` - 1.

    A damaged image is replaced by another one of its batch, and a warning names it.

    Args:
      sizes: labelled and unlabelled images per step; 0 unlabelled: none are read.
      rows: the rows that this process reads; None: all.

    Raises:
      RunError: more than 1 % of the training images are damaged, or all images of a batch.
    """
    rows = rows or (np.arange(sizes[0]), np.arange(sizes[1]))
    parts = [(split.labeled, sizes[0], rows[0])]
    if sizes[1]:
        parts.append((split.unlabeled, sizes[1], rows[1]))
    labeled = len(rows[0])
    places = [_places_in(indices) for indices, _, _ in parts]

    def choose(step: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns the images of a step, and a random seed for each."""
        chosen, numbers = [], []
        for part, (indices, size, mine) in enumerate(parts):
            counter = step * size + mine
            chosen.append(indices[positions((seed, part), len(indices), counter)])
            numbers.append(np.stack([np.full(len(mine), 2 * seed + part), counter], axis=1))
        return np.concatenate(chosen), np.concatenate(numbers)

    total = len(data.labels)
    damage = _Damage(
        data.train_index,
        f"{total} training images",
        "; another image takes its place",
        _TOLERATED * total,
    )
    for images, valid, indices in decoding.in_steps(
        data.train_index,
        choose,
        range(start, stop),
        sum(len(mine) for _, _, mine in parts),
        data.image_size,
        crops.training,
    ):
        if not valid.all():
            damage.note(indices[~valid])
            indices, images = indices.copy(), images.copy()
            for part in (slice(0, labeled), slice(labeled, None)):
                good = _nearest_good(valid[part])
                indices[part], images[part] = indices[part][good], images[part][good]
        labels = data.labels[indices].astype(np.int32)
        index = places[0](indices[:labeled])
        batch = RawBatch(images[:labeled], labels[:labeled], index)
        if sizes[1]:
            batch = batch._replace(
                unlabeled=images[labeled:],
                unlabeled_labels=labels[labeled:],
                unlabeled_index=places[1](indices[labeled:]),
            )
        yield batch


def _places_in(indices: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Returns a function from images to their positions in a list of images, int32."""
    order = np.argsort(indices)
    return lambda images: order[np.searchsorted(indices, images, sorter=order)].astype(np.int32)


def positions(seed: tuple[int, int], size: int, counter: np.ndarray) -> np.ndarray:
    """Returns the examples numbered `counter` in an endless sequence in which every `size` examples
    (an epoch) form a permutation drawn from `seed`."""
    epochs, offsets = np.divmod(counter, size)
    return np.array([_order(seed, int(e), size)[o] for e, o in zip(epochs, offsets, strict=True)])


@functools.lru_cache(maxsize=8)
def _order(seed: tuple[int, int], epoch: int, size: int) -> np.ndarray:
    return np.random.default_rng([*seed, epoch]).permutation(size)


class _Damage:
    """Records images that cannot be decoded: each is reported once, and too many are an error.

    Args:
      images: a description for messages: `200 training images`.
      then: what happens to an image that cannot be decoded, for messages.
      tolerated: how many damaged images are accepted.
    """

    def __init__(self, image_index: ImageIndex, images: str, then: str, tolerated: float):
        self._index, self._images, self._then = image_index, images, then
        self._tolerated = tolerated
        self._known: set[int] = set()

    def note(self, indices: np.ndarray) -> None:
        """Reports newly found damaged images.

        Raises:
          RunError: there are too many.
        """
        for index in sorted(set(indices.tolist()) - self._known):
            reason = self._index.damage(index)
            LOG.warning(
                f"warning: {self._index.describe(index)} cannot be decoded{self._then}"
                f"{reason and ': ' + reason}"
            )
            self._known.add(index)
        if len(self._known) > self._tolerated:
            raise RunError(
                f"{len(self._known)} of {self._images} cannot be decoded, more than "
                f"{_TOLERATED:.0%}; the last one is {self._index.describe(max(self._known))}"
            )


def require_decodable(image_index: ImageIndex, part: str) -> None:
    """Tries to decode a few of the user's images, evenly spaced, before training starts.

    Raises:
      UsageError: most of them cannot be decoded.
    """
    total = len(image_index.labels)
    tried = np.unique(np.linspace(0, total - 1, min(_TRIED, total)).astype(int)).tolist()
    damaged = [index for index in tried if image_index.damage(index)]
    if len(damaged) > len(tried) / 2:
        first = image_index.describe(damaged[0]), image_index.damage(damaged[0])
        raise UsageError(
            f"config.dataset: {len(damaged)} of {len(tried)} {part} images that were tried cannot "
            f"be decoded; {': '.join(first)}"
        )


def _nearest_good(valid: np.ndarray) -> np.ndarray:
    """Returns, for each image of a batch, the nearest undamaged image, possibly itself."""
    good = np.flatnonzero(valid)
    if len(valid) and not len(good):
        raise RunError("no image of a batch can be decoded")
    return good[np.argmin(np.abs(np.arange(len(valid))[:, None] - good), axis=1)]


def _evaluation(
    image_index: ImageIndex,
    indices: np.ndarray,
    size: int,
    image_size: int,
    tolerated: float = _TOLERATED,
) -> Batches:
    """Yields each image once, except those that cannot be decoded, which a warning names.

    Args:
      tolerated: the fraction that may be damaged.
    """
    total = len(indices)
    damage = _Damage(
        image_index, f"{total} images to evaluate", " and is not evaluated", tolerated * total
    )
    for images, valid, chosen in decoded(image_index, indices, size, image_size):
        damage.note(chosen[~valid])
        yield images[valid], image_index.labels[chosen[valid]]


def decoded(
    image_index: ImageIndex, indices: np.ndarray, size: int, image_size: int
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yields central crops `[n, H, W, 3]` uint8 of some images, `size` at a time, whether each
    was decoded, and the images' numbers."""

    def choose(batch: int) -> tuple[np.ndarray, np.ndarray]:
        chosen = indices[batch * size : (batch + 1) * size]
        return chosen, np.zeros((len(chosen), 2), np.int64)

    batches = range(-(-len(indices) // size))
    return decoding.in_steps(image_index, choose, batches, size, image_size, crops.evaluation)
