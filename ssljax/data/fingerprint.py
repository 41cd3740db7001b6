"""Fingerprints of data sets: `data.json` of a run, compared whenever the run's data are read.

    {
      "image_shape": [32, 32, 3],
      "class_names": ["cat", "dog"],                     in the order of the network's outputs
      "fingerprint": {"train": "9f3c…", "test": "77ab…"}   hashes of the images and their labels
    }

For streams, names, sizes and labels are hashed, because reading all images would take hours.
"""

import hashlib
from typing import Any

import numpy as np

from ssljax.data.datasets import Dataset
from ssljax.data.image_index import ImageIndex
from ssljax.data.streaming import StreamedDataset

_ROWS = 4096  # images hashed at once


def record(data: Dataset | StreamedDataset) -> dict[str, Any]:
    """Returns the content of `data.json`."""
    if isinstance(data, StreamedDataset):
        prints = {"train": _of_index(data.train_index), "test": _of_index(data.test_index)}
    else:
        prints = {
            "train": _of_arrays(data.images, data.labels),
            "test": _of_arrays(data.test_images, data.test_labels),
        }
    return {
        "image_shape": [int(size) for size in data.image_shape],
        "class_names": [str(name) for name in data.class_names],
        "fingerprint": prints,
    }


def _of_arrays(images: np.ndarray, labels: np.ndarray) -> str:
    digest = hashlib.sha256(repr((images.shape, str(images.dtype))).encode())
    digest.update(labels.astype("<i8").tobytes())
    for start in range(0, len(images), _ROWS):
        digest.update(np.ascontiguousarray(images[start : start + _ROWS]).data)
    return digest.hexdigest()[:16]


def _of_index(index: ImageIndex) -> str:
    digest = hashlib.sha256(index.labels.astype("<i8").tobytes())
    digest.update(index.length.astype("<i8").tobytes())
    digest.update("\n".join(index.names.tolist()).encode(errors="surrogateescape"))
    return digest.hexdigest()[:16]
