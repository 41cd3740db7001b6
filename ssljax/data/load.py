"""Loads a data set by name, and splits it into labelled and other images."""

import inspect
from pathlib import Path

import numpy as np

from ssljax import paths
from ssljax.checks import check_returned
from ssljax.data import (
    datasets,
    folder,
    image_index,
    imagenet_folds,
    long_tail,
    memory,
    split_file,
    splits,
    streaming,
    tensorflow_import,
)  # fmt: skip
from ssljax.data.datasets import Dataset
from ssljax.data.splits import Split, SplitName
from ssljax.data.streaming import StreamedDataset
from ssljax.errors import UsageError
from ssljax.log import LOG, printable, some
from ssljax.lookup import find

CONVENTIONS = ("exclude_labeled", "all", "strict")  # for unlabelled images, see `make_split`
LABELS_PER_CLASS = ("natural", "balanced")  # draws of labelled images, see `make_split`


def load(
    dataset: str,
    *,
    unlabeled: str,
    labels_per_class: str = "natural",
    data_dir: str = "",
    image_size: int = 0,
    path: str = "",
    stream: bool = False,
) -> tuple[Dataset | StreamedDataset, Split]:
    """Reads the data set with a published name, and splits it.

    Args:
      dataset: `<data set>.<seed>@<labels>-<validation images>`, or a long-tailed name, see
        `splits.parse`. The data set is a function of `datasets.py`, or a user-defined function with
        the same arguments, `<module>.<name>`, followed by a colon and its `where` if it takes one.
        ImageNet has other names, see `imagenet_folds.py`.
      unlabeled: one of `CONVENTIONS`.
      labels_per_class: one of `LABELS_PER_CLASS`.
      data_dir: directory of prepared data sets; "": TFDS's default.
      image_size: side in pixels that images are resized to; 0: images keep their size.
      path: a `split.json` to take the split from, whatever the name says, or a published list of
        labelled files; "": none.
      stream: whether images are read on demand; ImageNet's always are.

    Raises:
      UsageError: an argument is invalid or does not fit the data.
    """
    balanced = labels_per_class == "balanced"
    if balanced and path:
        raise _not_drawn("the images of config.split_file are given")
    if fold := imagenet_folds.parse(dataset):
        if balanced:
            raise _not_drawn("the folds of imagenet are plain random ones")
        data, split = _imagenet(*fold, data_dir, image_size, path)
    else:
        name = splits.parse(dataset)
        if balanced and (name.size is None or name.tail):
            says = "says how many of each class" if name.tail else "takes every label"
            raise _not_drawn(f"config.dataset {dataset} {says}")
        data = (_stream if stream else _read)(name.dataset, data_dir, image_size)
        data = data._replace(class_names=tuple(map(printable, data.class_names)))
        data, split = (
            _given(path, data) if path else (data, split_of(name, data, unlabeled, balanced))
        )
    _judge(dataset, data, split)
    if not len(data.test_labels) and not len(labeled_validation(data, split)):
        raise UsageError(
            f"config.dataset {dataset} has neither test images nor labelled validation images to "
            "evaluate on; allowed: a name that ends with a number of validation images"
        )
    return data, split


def _not_drawn(reason: str) -> UsageError:
    return UsageError(f"config.labels_per_class is 'balanced'; allowed: natural, as {reason}")


def _judge(name: str, data: Dataset | StreamedDataset, split: Split) -> None:
    """Rejects data with a single class, and warns about doubtful labels.

    Warnings are about classes without labels, and about validation images that are trained on.
    """
    if data.num_classes < 2:
        raise UsageError(
            f"config.dataset {printable(name)} has one class, {', '.join(data.class_names)}; "
            "allowed: from two classes up"
        )
    counts = splits.class_counts(data.labels, split, data.num_classes)
    if np.isin(split.valid, split.labeled).sum() > len(split.valid) / 2:
        LOG.warning(
            "warning: most validation images are labelled ones, which are trained on; "
            "config.unlabeled=strict keeps them apart"
        )
    without = [data.class_names[c] for c in np.flatnonzero(counts == 0)]
    if without:
        LOG.warning(
            f"warning: {len(without)} of {data.num_classes} classes have no labelled image and "
            f"cannot be learned: {some(without)}"
        )


def labeled_validation(data: Dataset | StreamedDataset, split: Split) -> np.ndarray:
    """Returns the validation images that have a label; only these can be evaluated."""
    return split.valid[data.labels[split.valid] >= 0]


def most_evaluated(data: Dataset | StreamedDataset, split: Split) -> int:
    """Returns the size of the largest evaluated part; larger batches would only add padding."""
    return max(1, len(data.test_labels), len(labeled_validation(data, split)))


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
    data = source(**{key: value for key, value in given.items() if key in takes})
    if "." in kind:
        _check(kind, data)
    return data


def _check(name: str, data: Dataset) -> None:
    """Checks the data set that a user-defined function returned."""
    check_returned("config.dataset", name, data, Dataset)
    if len(data.class_names) != data.num_classes:
        raise UsageError(
            f"config.dataset {name!r} has {len(data.class_names)} class_names; allowed: "
            f"{data.num_classes}, its num_classes"
        )
    for part, images, labels, least in (
        ("images", data.images, data.labels, -1),
        ("test_images", data.test_images, data.test_labels, 0),
    ):
        if images.dtype != np.uint8 or images.ndim != 4 or labels.shape != (len(images),):
            raise UsageError(
                f"config.dataset {name!r} has {part} {images.dtype} {list(images.shape)} with "
                f"labels {list(labels.shape)}; allowed: uint8 [N, H, W, C] with labels [N]"
            )
        if len(labels) and not least <= labels.min() <= labels.max() < data.num_classes:
            raise UsageError(
                f"config.dataset {name!r} has labels {labels.min()} to {labels.max()} of {part}; "
                f"allowed: {least} to {data.num_classes - 1}"
            )


def _imagenet(size, seed, data_dir, image_size, path):
    """Returns ImageNet as a stream, and one of its folds."""
    data = _stream("tfds:imagenet2012", data_dir, image_size)
    if path:
        return _given(path, data)
    if size is not None:
        LOG.info(
            f"note: the {size} labelled images are a plain random fold of seed {seed}, not the "
            "published one; for that one, set --config.split_file=<its list of files>"
        )
    return data, _around(imagenet_folds.draw(size, seed, data.labels), data)


def _given(path: str, data: Dataset | StreamedDataset) -> tuple[Dataset | StreamedDataset, Split]:
    """Returns the split in a file, and the data with the labels that the file adds."""
    if path.endswith(".json"):
        split, added = split_file.read(
            Path(path).expanduser(), data.labels, data.class_names, data.names()
        )
        return data.with_labels(added) if added else data, split
    if isinstance(data, StreamedDataset):
        return data, _around(imagenet_folds.read_list(Path(path), data.train_index.names), data)
    raise UsageError(
        f"config.split_file is {path}; allowed: a .json, or with streams a list of files"
    )


def _around(labeled: np.ndarray, data: StreamedDataset) -> Split:
    """Returns a split as published for ImageNet: all images unlabelled, none for validation."""
    return Split(labeled, np.arange(len(data.labels)), np.arange(0))


def _stream(name: str, data_dir: str, image_size: int) -> StreamedDataset:
    kind, _, where = name.partition(":")
    if not image_size:
        raise UsageError("config.image_size is 0; allowed for streams: from 1 up, the crops' side")
    if kind not in ("tfds", "folder") or not where:
        raise UsageError(
            f"config.dataset names {name!r}, which cannot be streamed; allowed with config.stream: "
            "folder:<…>, tfds:<…>, imagenet"
        )
    crops = 3 * 4 * image_size**2 * streaming.AT_ONCE  # float32
    memory.require(
        f"config.image_size is {image_size}: crops", crops, memory.host_bytes(), "memory"
    )
    tensorflow_import.require("tensorflow", "config.stream")
    if kind == "tfds":
        train, test, classes = image_index.of_tfds(where, data_dir)
        return StreamedDataset(train, test, len(classes), tuple(classes), image_size)
    place = Path(paths.expand(where, "config.dataset"))
    names, train_files, test_files, num_valid = folder.listing(place)
    train, test = map(image_index.of_files, (train_files, test_files))
    streaming.require_decodable(train, "training")
    streaming.require_decodable(test, "test")
    return StreamedDataset(train, test, len(names), tuple(names), image_size, num_valid)


def split_of(
    name: SplitName, data: Dataset | StreamedDataset, unlabeled: str, balanced: bool
) -> Split:
    """Returns the split of a name, drawn by the labels of its data; see `load`."""
    num_train = len(data.labels) - data.num_valid
    if data.num_valid and name.valid:
        raise UsageError(
            f"config.dataset asks for {name.valid} validation images, but {name.dataset} has "
            f"{data.num_valid} predefined ones; allowed: -0"
        )
    labels = data.labels[:num_train]
    if name.tail:
        found = _long_tailed(name, data, labels, unlabeled)
    else:
        found = _drawn(name, data, labels, unlabeled, balanced)
    if data.num_valid:
        return found._replace(valid=np.arange(num_train, len(data.labels)))
    return found


def _long_tailed(
    name: SplitName, data: Dataset | StreamedDataset, labels: np.ndarray, unlabeled: str
) -> Split:
    assert name.tail is not None
    return long_tail.make_split(
        labels,
        name.tail,
        num_classes=data.num_classes,
        seed=name.seed,
        size=name.size,
        valid=name.valid,
        include_labeled=unlabeled != "exclude_labeled",
    )


def _drawn(
    name: SplitName,
    data: Dataset | StreamedDataset,
    labels: np.ndarray,
    unlabeled: str,
    balanced: bool,
) -> Split:
    published = data.folds.get(name.size or 0)
    if published and balanced:
        raise _not_drawn(f"{name.dataset} has published sets of {name.size} labels")
    return splits.make_split(
        labels,
        seed=name.seed,
        size=name.size,
        valid=name.valid,
        include_labeled=unlabeled != "exclude_labeled",
        strict=unlabeled == "strict",
        balanced=balanced,
        labeled=published(name.seed) if published else None,
    )
