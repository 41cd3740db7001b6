"""The ten published sets of 1,000 labelled images of STL-10."""

import numpy as np
from etils import epath  # paths that may be gs:// URLs

from ssljax.data import tfds_source
from ssljax.errors import UsageError

_URL = "http://ai.stanford.edu/~acoates/stl10/stl10_binary.tar.gz"


def read(seed: int, *, data_dir: str, labels: np.ndarray) -> np.ndarray:
    """Returns the labelled images `[1000]` of fold `seed`, 0 to 9, as `create_split.py` reads them.

    Args:
      data_dir: directory of `stl10_fold_indices.txt`, or of the archive that TFDS extracted.
      labels: labels of the training records in the archive's order, which the fold's indices use.

    Raises:
      UsageError: there is no such fold or no file, or the records are in another order.
    """
    if not 0 <= seed <= 9:
        raise UsageError(
            f"config.dataset: the seed of stl10 with 1000 labels is its fold, {seed}; allowed: "
            "0 to 9"
        )
    path = _find(data_dir)
    try:
        fold = np.array(path.read_text("utf-8").splitlines()[seed].split(), np.int64)
    except (OSError, ValueError, IndexError) as error:
        raise UsageError(f"{path} holds no fold {seed}: {error}") from error
    # Each published fold has 100 images per class, so another order is detected here.
    in_range = len(fold) and fold.min() >= 0 and fold.max() < len(labels)
    classes = labels[fold] if in_range else fold[:0]
    if not np.array_equal(np.bincount(classes[classes >= 0], minlength=10), np.full(10, 100)):
        raise UsageError(
            f"{path}: fold {seed} does not have 100 images of each of the 10 classes, so the "
            "STL-10 that TFDS prepared is in another order than the published one"
        )
    return fold


def _find(data_dir: str) -> epath.Path:
    folder = epath.Path(tfds_source.directory(data_dir))
    extracted = "downloads/extracted/*stl10*/stl10_binary/fold_indices.txt"
    for path in (folder / "stl10_fold_indices.txt", *sorted(folder.glob(extracted))):
        if path.is_file():
            return path
    raise UsageError(
        f"stl10 with 1000 labels needs {folder / 'stl10_fold_indices.txt'}: put there "
        f"fold_indices.txt of {_URL}"
    )
