"""A data-set name -> images, and which of them are labelled."""

import inspect
from pathlib import Path

import numpy as np

from ssljax.data import datasets, split_file, splits
from ssljax.data.datasets import Dataset
from ssljax.data.splits import Split, SplitName
from ssljax.errors import UsageError
from ssljax.lookup import find

CONVENTIONS = ("exclude_labeled", "all", "strict")  # of the unlabelled list, see `make_split`


def load(
    dataset: str, *, unlabeled: str, data_dir: str = "", image_size: int = 0, path: str = ""
) -> tuple[Dataset, Split]:
    """Reads the data set that a published name names, and splits it.

    Args:
      dataset: `<data set>.<seed>@<labels>-<validation images>`, where the data set is a function of
        `datasets.py`, followed by a colon and its `where` if it takes one.
      unlabeled: one of `CONVENTIONS`.
      data_dir: where prepared data sets are; "": TFDS's own.
      image_size: side in pixels that images get; 0: their own.
      path: a `split.json` to take the split from, whatever the name says; "": none.

    Raises:
      UsageError: any of it does not fit.
    """
    name = splits.parse(dataset)
    data = _read(name.dataset, data_dir, image_size)
    split = split_file.read(Path(path), data.labels) if path else _split(name, data, unlabeled)
    if not len(data.test_images) and not len(scored(data, split)):
        raise UsageError(
            f"config.dataset {dataset} has neither test images nor labelled validation images to "
            "evaluate on; allowed: a name that ends with a number of validation images"
        )
    return data, split


def scored(data: Dataset, split: Split) -> np.ndarray:
    """The validation images that have a label; only these can be evaluated."""
    return split.valid[data.labels[split.valid] >= 0]


def _read(name: str, data_dir: str, image_size: int) -> Dataset:
    kind, _, where = name.partition(":")
    source = find("config.dataset", kind, [datasets])
    takes = inspect.signature(source).parameters
    if ("where" in takes) != bool(where):
        allowed = f"{kind}:<…>" if "where" in takes else kind
        raise UsageError(f"config.dataset names {name!r}; allowed: {allowed}")
    if image_size and "image_size" not in takes:
        raise UsageError(f"config.image_size is {image_size}; allowed: 0, as {kind} has one size")
    given = {"where": where, "data_dir": data_dir, "image_size": image_size}
    return source(**{key: value for key, value in given.items() if key in takes})


def _split(name: SplitName, data: Dataset, unlabeled: str) -> Split:
    own = len(data.labels) - data.num_valid
    if data.num_valid and name.valid:
        raise UsageError(
            f"config.dataset asks for {name.valid} validation images, but {name.dataset} has "
            f"{data.num_valid} of its own; allowed: -0"
        )
    published = data.folds.get(name.size or 0)
    split = splits.make_split(
        data.labels[:own],
        seed=name.seed,
        size=name.size,
        valid=name.valid,
        include_labeled=unlabeled != "exclude_labeled",
        strict=unlabeled == "strict",
        labeled=published(name.seed) if published else None,
    )
    if data.num_valid:
        return split._replace(valid=np.arange(own, len(data.labels)))
    return split
