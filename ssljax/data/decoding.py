"""Decodes and crops images with tf.data to one size, step by step, prefetching steps."""

import functools
import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ssljax.data import tensorflow_import
from ssljax.data.image_index import ImageIndex
from ssljax.data.images import as_bmp, bmp, is_plain

_BLACK = bmp(np.zeros((8, 8, 3), np.uint8))  # replaces a missing image


def in_steps(
    image_index: ImageIndex,
    choose: Callable[[int], tuple[np.ndarray, np.ndarray]],
    steps: range,
    size: int,
    image_size: int,
    crop: Callable[[Any, Any, int], Any],
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yields, per step, images `[size, H, W, 3]` uint8, whether each was decoded, and its record.

    Damaged images are rare and checking for them takes a fifth of the time. Therefore only a step
    in which decoding fails is repeated, with each image guarded. The image is remembered as
    damaged.
    """
    tf = tensorflow_import.require("tensorflow", "config.stream")
    damaged: set[int] = set()
    pipeline = functools.partial(_pipeline, image_index, choose, size, image_size, crop, damaged)
    step = steps.start
    while step < steps.stop:
        try:
            for decoded in pipeline(range(step, steps.stop), guard=False):
                yield decoded
                step += 1
        except tf.errors.InvalidArgumentError:
            for images, valid, indices in pipeline(range(step, step + 1), guard=True):
                damaged.update(indices[~valid].tolist())
                yield images, valid, indices
            step += 1


def _pipeline(image_index, choose, size, image_size, crop, damaged, steps, *, guard):
    """Builds the pipeline: Python threads read files, everything else runs inside tf.data."""
    import tensorflow as tf

    are_files = image_index.are_files

    def read(step):
        indices, numbers = choose(int(step))
        images = [b"" if i in damaged else _encoded(image_index, i) for i in indices.tolist()]
        there = [len(image) > 0 for image in images]
        others = [are_files and len(image) > 0 and not is_plain(image) for image in images]
        images = [image or _BLACK for image in images]
        return np.array(images, object), np.array(others), np.array(there), numbers, indices

    def read_step(step):
        types = (tf.string, tf.bool, tf.bool, tf.int64, tf.int64)
        *flat, numbers, indices = tf.numpy_function(read, [step], types)
        flat = (tf.ensure_shape(x, [None]) for x in flat)
        return *flat, tf.ensure_shape(numbers, [None, 2]), indices

    def decode(encoded, other, there, number, index):
        encoded = tf.cond(
            other, lambda: tf.numpy_function(as_bmp, [encoded], tf.string), lambda: encoded
        )
        encoded = tf.ensure_shape(encoded, [])

        def image():
            return crop(encoded, number, image_size)

        decoded, works = _guarded(image, image_size) if guard else (image(), True)
        return decoded, there & works, index

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


def _encoded(image_index: ImageIndex, index: int) -> bytes:
    """Returns the encoded image, or b"" if it is missing or cannot be read."""
    try:
        return image_index.read(index)
    except Exception:  # each storage backend raises its own types
        return b""


def _guarded(decode, size):
    """Returns `decode()` and True, or a black image and False if it fails."""
    import tensorflow as tf

    image = tf.data.Dataset.from_tensors(0).map(lambda _: (decode(), True))
    nothing = tf.data.Dataset.from_tensors((tf.zeros([size, size, 3], tf.uint8), False))
    either = image.ignore_errors().concatenate(nothing).take(1)
    return either.get_single_element()
