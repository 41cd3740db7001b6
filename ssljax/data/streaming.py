"""The streamed input, for data sets that do not fit in memory: ImageNet, and any other.

The host decodes, crops and flips with tf.data and gives the devices uint8 images; everything else
happens there. Which images a step reads, and how they are cropped, is a function of (seed, step):
`image_index.py` finds any image at once, so that an interrupted run goes on with the same batches
without reading again what came before.

Crops are those of `datasets/imagenet.py` of fixmatch's imagenet code.
"""

import functools
import os
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from ssljax.data.batches import RawBatch
from ssljax.data.datasets import Batches
from ssljax.data.image_index import ImageIndex
from ssljax.data.splits import Split
from ssljax.errors import RunError
from ssljax.log import LOG, quiet_import

_EVALUATED = 224 / 256  # share of the shorter side in the evaluation's central crop
_TOLERATED = 0.01  # share of the training images that may be damaged


class StreamedDataset(NamedTuple):
    """Training and test images that are read when they are needed; see `datasets.Dataset`."""

    train_index: ImageIndex
    test_index: ImageIndex
    num_classes: int
    class_names: tuple[str, ...]
    image_size: int  # side in pixels of the crops
    num_valid: int = 0  # how many of the last training images serve for validation only
    folds: Mapping[int, Callable[[int], np.ndarray]] = MappingProxyType({})

    @property
    def labels(self) -> np.ndarray:
        """Of the training images, `[N]` int64, -1: none."""
        return self.train_index.labels

    @property
    def test_labels(self) -> np.ndarray:
        """`[T]` int64."""
        return self.test_index.labels

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(height, width, channels)."""
        return self.image_size, self.image_size, 3

    def pick(self, indices: np.ndarray) -> np.ndarray:
        """Some training images, to look at: uint8 `[n, H, W, C]`."""
        return np.concatenate([images for images, _ in self.batches(indices, 64)])

    def batches(self, indices: np.ndarray, size: int) -> Batches:
        """Central crops of some training images and their labels, `size` at a time."""
        return _evaluation(self.train_index, indices, size, self.image_size)

    def test_batches(self, indices: np.ndarray, size: int) -> Batches:
        """As `batches`, of test images."""
        return _evaluation(self.test_index, indices, size, self.image_size)


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
    """What steps `start` to `stop` - 1 train on, on the host.

    A damaged image is replaced by another one of its batch, and named.

    Args:
      sizes: labelled and unlabelled images per step; of the latter 0: none.
      rows: which of them this process reads; None: all.

    Raises:
      RunError: more than 1 % of the training images are damaged, or all of a batch.
    """
    rows = rows or (np.arange(sizes[0]), np.arange(sizes[1]))
    parts = [(split.labeled, sizes[0], rows[0])]
    if sizes[1]:
        parts.append((split.unlabeled, sizes[1], rows[1]))
    labeled = len(rows[0])

    def choose(step: int) -> tuple[np.ndarray, np.ndarray]:
        """ImageIndex, and a number for the randomness of each."""
        chosen, numbers = [], []
        for part, (indices, size, mine) in enumerate(parts):
            counter = step * size + mine
            chosen.append(indices[positions((seed, part), len(indices), counter)])
            numbers.append(np.stack([np.full(len(mine), 2 * seed + part), counter], axis=1))
        return np.concatenate(chosen), np.concatenate(numbers)

    damaged: set[int] = set()
    for images, valid, indices in _decoded(
        data.train_index,
        choose,
        range(start, stop),
        sum(len(mine) for _, _, mine in parts),
        data.image_size,
        _training_image,
    ):
        if not valid.all():
            _report(data.train_index, indices[~valid], damaged)
            indices, images = indices.copy(), images.copy()
            for part in (slice(0, labeled), slice(labeled, None)):
                good = _nearest_good(valid[part])
                indices[part], images[part] = indices[part][good], images[part][good]
        labels = data.labels[indices].astype(np.int32)
        batch = RawBatch(images[:labeled], labels[:labeled], None, None)
        if sizes[1]:
            batch = batch._replace(unlabeled=images[labeled:], unlabeled_labels=labels[labeled:])
        yield batch


def positions(seed: tuple[int, int], size: int, counter: np.ndarray) -> np.ndarray:
    """Which of `size` examples come as number `counter` of an endless sequence, in which each run
    of `size` (an epoch) is a permutation drawn from `seed`."""
    epochs, offsets = np.divmod(counter, size)
    return np.array([_order(seed, int(e), size)[o] for e, o in zip(epochs, offsets, strict=True)])


@functools.lru_cache(maxsize=8)
def _order(seed: tuple[int, int], epoch: int, size: int) -> np.ndarray:
    return np.random.default_rng([*seed, epoch]).permutation(size)


def _report(image_index: ImageIndex, indices: np.ndarray, damaged: set[int]) -> None:
    """Names what is damaged and was not known to be."""
    for index in sorted(set(indices.tolist()) - damaged):
        LOG.warning(
            f"warning: {image_index.names[index]} cannot be decoded; another image takes its place"
        )
        damaged.add(index)
    if len(damaged) > _TOLERATED * len(image_index.labels):
        raise RunError(
            f"{len(damaged)} of {len(image_index.labels)} training images cannot be decoded, more "
            f"than {_TOLERATED:.0%}; the last one is {image_index.names[max(damaged)]}"
        )


def _nearest_good(valid: np.ndarray) -> np.ndarray:
    """For each image of a batch itself, or where it is damaged, the nearest that is not."""
    good = np.flatnonzero(valid)
    if len(valid) and not len(good):
        raise RunError("no image of a batch can be decoded")
    return good[np.argmin(np.abs(np.arange(len(valid))[:, None] - good), axis=1)]


def _evaluation(
    image_index: ImageIndex, indices: np.ndarray, size: int, image_size: int
) -> Batches:
    """Each image once, but for those that cannot be decoded, which are named."""

    def choose(batch: int) -> tuple[np.ndarray, np.ndarray]:
        chosen = indices[batch * size : (batch + 1) * size]
        return chosen, np.zeros((len(chosen), 2), np.int64)

    batches = range(-(-len(indices) // size))
    for images, valid, chosen in _decoded(
        image_index, choose, batches, size, image_size, _evaluation_image
    ):
        for index in chosen[~valid]:
            LOG.warning(
                f"warning: {image_index.names[index]} cannot be decoded and is not evaluated"
            )
        yield images[valid], image_index.labels[chosen[valid]]


def _decoded(
    image_index: ImageIndex,
    choose: Callable[[int], tuple[np.ndarray, np.ndarray]],
    steps: range,
    size: int,
    image_size: int,
    crop: Callable[[Any, Any, int], Any],
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Images `[size, H, W, 3]` uint8, whether each could be decoded, and its record, step by step.

    Damaged images are rare and looking for them takes a fifth of the time, so that only the step in
    which one fails is done again with a guard around each image.
    """
    with quiet_import():
        import tensorflow as tf

    tf.config.set_visible_devices([], "GPU")
    pipeline = functools.partial(_pipeline, image_index, choose, size, image_size, crop)
    step = steps.start
    while step < steps.stop:
        try:
            for decoded in pipeline(range(step, steps.stop), guard=False):
                yield decoded
                step += 1
        except tf.errors.InvalidArgumentError:
            yield from pipeline(range(step, step + 1), guard=True)
            step += 1


def _pipeline(image_index, choose, size, image_size, crop, steps, *, guard):
    """Python reads files, in threads; all else runs in tf.data's own."""
    import tensorflow as tf

    def read(step):
        indices, numbers = choose(int(step))
        return np.array([image_index.read(i) for i in indices], object), numbers, indices

    def read_step(step):
        encoded, numbers, indices = tf.numpy_function(read, [step], (tf.string, tf.int64, tf.int64))
        return tf.ensure_shape(encoded, [None]), tf.ensure_shape(numbers, [None, 2]), indices

    def decode(encoded, number, index):
        def image():
            return crop(encoded, number, image_size)

        return *(_guarded(image, image_size) if guard else (image(), True)), index

    steps_ahead = max(2, (os.cpu_count() or 1) // 8)
    dataset = (
        tf.data.Dataset.range(steps.start, steps.stop)
        .map(read_step, num_parallel_calls=steps_ahead, deterministic=True)
        .unbatch()
        .map(decode, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        .batch(size)
        .prefetch(2)
    )
    return dataset.as_numpy_iterator()


def _guarded(decode, size):
    """`decode()` and True, or a black image and False where it fails."""
    import tensorflow as tf

    image = tf.data.Dataset.from_tensors(0).map(lambda _: (decode(), True))
    nothing = tf.data.Dataset.from_tensors((tf.zeros([size, size, 3], tf.uint8), False))
    either = image.ignore_errors().concatenate(nothing).take(1)
    return either.get_single_element()


def _training_image(encoded, number, size):
    """A random crop of 8 to 100 % of the image and of aspect 3/4 to 4/3, resized, maybe flipped.

    As in the published code, it also has to cover a tenth of the image (`min_object_covered`), and
    a crop that is the whole image becomes the evaluation's central crop.
    """
    import tensorflow as tf

    crop_seed, flip_seed = tf.unstack(tf.random.split(number, 2))
    shape = _shape(encoded)
    begin, extent, _ = tf.image.stateless_sample_distorted_bounding_box(
        shape,
        bounding_boxes=tf.constant([[[0.0, 0.0, 1.0, 1.0]]]),
        seed=crop_seed,
        min_object_covered=0.1,
        aspect_ratio_range=(3 / 4, 4 / 3),
        area_range=(0.08, 1.0),
        max_attempts=10,
        use_image_if_no_bounding_boxes=True,
    )
    whole = tf.reduce_all(extent[:2] == shape[:2])
    window = tf.where(whole, _central(shape), tf.concat([begin[:2], extent[:2]], axis=0))
    image = _cropped(encoded, window, size)
    return tf.image.stateless_random_flip_left_right(image, flip_seed)


def _evaluation_image(encoded, number, size):
    del number
    return _cropped(encoded, _central(_shape(encoded)), size)


def _shape(encoded):
    """Height, width and channels, `[3]` int32."""
    import tensorflow as tf

    return tf.cond(
        tf.io.is_jpeg(encoded),
        lambda: tf.image.extract_jpeg_shape(encoded),
        lambda: tf.shape(tf.io.decode_image(encoded, channels=3, expand_animations=False)),
    )


def _central(shape):
    """The central square of 224/256 of the shorter side: top, left, height, width `[4]` int32."""
    import tensorflow as tf

    side = tf.cast(_EVALUATED * tf.cast(tf.minimum(shape[0], shape[1]), tf.float32), tf.int32)
    return tf.stack([(shape[0] - side + 1) // 2, (shape[1] - side + 1) // 2, side, side])


def _cropped(encoded, window, size):
    """A part of an image, `[size, size, 3]` uint8: bicubic, cut off at 0 and 255."""
    import tensorflow as tf

    def other():
        image = tf.io.decode_image(encoded, channels=3, expand_animations=False)
        top, left, height, width = tf.unstack(window)
        return image[top : top + height, left : left + width]

    image = tf.cond(
        tf.io.is_jpeg(encoded),
        lambda: tf.image.decode_and_crop_jpeg(encoded, window, channels=3),
        other,
    )
    image = tf.image.resize(image, [size, size], method=tf.image.ResizeMethod.BICUBIC)
    return tf.ensure_shape(tf.saturate_cast(image, tf.uint8), [size, size, 3])
