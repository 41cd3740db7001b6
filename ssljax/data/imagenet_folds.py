"""ImageNet's labelled sets: names such as `imagenet128116.1`, and the published lists of files.

The published folds are drawn uniformly at random, not balanced by class. They are files such as
`files2shards_train_size128116_split1.txt`, in `imagenet/prep_imagenet_data/data_splits/` of
google-research/fixmatch.
"""

import re
from pathlib import Path

import numpy as np

from ssljax.errors import UsageError

_NAME = re.compile(r"imagenet(?:(?P<size>[1-9]\d*)\.(?P<seed>\d+))?")


def parse(name: str) -> tuple[int | None, int] | None:
    """Parses `imagenet128116.1` to (128116, 1), `imagenet` (all labels) to (None, 0), else None.

    Raises:
      UsageError: the name starts like these but has another form.
    """
    match = _NAME.fullmatch(name)
    if match:
        return (int(match["size"]), int(match["seed"])) if match["size"] else (None, 0)
    if name.startswith("imagenet"):
        raise UsageError(
            f"config.dataset {name!r} is not imagenet<labels>.<seed>, for example "
            "imagenet128116.1, or imagenet for all labels"
        )
    return None


def read_list(path: Path, names: np.ndarray) -> np.ndarray:
    """Returns the records, ascending, in a list of files: `n01770081_5195.JPEG,0,0`, one per line.

    Args:
      names: file names of the training records `[N]`.

    Raises:
      UsageError: the list cannot be read, is empty, or names missing files or a file twice.
    """
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"config.split_file {path} cannot be read: {error}") from error
    listed = [line.split(",")[0].strip() for line in lines if line.strip()]
    where = {name: index for index, name in enumerate(names.tolist())}
    missing = [name for name in listed if name not in where]
    if not listed:
        raise UsageError(f"config.split_file {path} names no images")
    if missing:
        raise UsageError(
            f"config.split_file {path} names {len(missing)} images, of {len(listed)}, that do not "
            f"exist: {', '.join(missing[:3])}{', …' if len(missing) > 3 else ''}"
        )
    chosen = np.unique([where[name] for name in listed])
    if len(chosen) < len(listed):
        raise UsageError(f"config.split_file {path} names an image twice")
    if len(where) < len(names) and (same := set(listed) & _repeated(names)):
        raise UsageError(
            f"config.split_file {path} names {min(same)}, but several images have this name; "
            "allowed: a .json of numbers"
        )
    return chosen


def _repeated(names: np.ndarray) -> set[str]:
    different, counts = np.unique(names, return_counts=True)
    return set(different[counts > 1].tolist())


def draw(size: int | None, seed: int, labels: np.ndarray) -> np.ndarray:
    """Draws a uniformly random fold of `size` of the N records, ascending; None: all records.

    Raises:
      UsageError: there are fewer than `size` records.
    """
    if size is None:
        return np.arange(len(labels))
    if size > len(labels):
        raise UsageError(
            f"config.dataset asks for {size} labelled images; allowed: 1 to {len(labels)}"
        )
    return np.sort(np.random.RandomState(seed).permutation(len(labels))[:size])
