"""`split.json`: which images were labelled, as a file that people and programs read and write.

    {
      "hash": "9f3c…",             optional when written by hand
      "labeled": [12, 55, …],      the labelled images
      "unlabeled": [0, 1, 2, …],   the images trained on without their labels
      "valid": [7, 8, …]           the validation images
    }

Numbers count the training records from 0: CIFAR, SVHN and STL-10 in the order of their published
files (SVHN: train, extra; STL-10: train, unlabeled), a folder as `folder.py` orders it, an .npz as
`npz.py` does. The order of a list is kept. `unlabeled` may repeat `labeled`, as FixMatch's does.
"""

from pathlib import Path
from typing import Any

import numpy as np

from ssljax.data.splits import Split, fingerprint
from ssljax.errors import UsageError
from ssljax.storage.files import parse_json


def record(split: Split) -> dict[str, Any]:
    """What the file holds of `split`."""
    lists = {name: indices.tolist() for name, indices in split._asdict().items()}
    return {"hash": fingerprint(split), **lists}


def read(path: Path, labels: np.ndarray) -> Split:
    """Reads a file for training records with these labels `[N]` (-1: none).

    Raises:
      UsageError: it cannot be read, was changed, or does not fit the records.
    """
    try:
        found = parse_json(path.read_bytes())
        split = Split(*(_indices(path, name, found, len(labels)) for name in Split._fields))
    except (OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(
            f"config.split_file {path} cannot be read: {type(error).__name__} {error}"
        ) from error
    if not len(split.labeled) or labels[split.labeled].min() < 0:
        raise UsageError(
            f"config.split_file {path}: labeled must name an image, and each must have a label"
        )
    if found.get("hash", fingerprint(split)) != fingerprint(split):
        raise UsageError(
            f"config.split_file {path}: its lists were changed after its hash {found['hash']} was "
            f"written; allowed: {fingerprint(split)}, or no hash"
        )
    return split


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
