"""Data sets prepared by TensorFlow Datasets (TFDS), decoded once and cached.

The cache is `<data_dir>/ssljax/<name>.npz`. If that cannot be written (a read-only folder,
`gs://`), it is in `$XDG_CACHE_HOME/ssljax` (default `~/.cache/ssljax`), in one folder per data_dir.
A cache is invalidated when the prepared files change, and stays valid if the folder is copied; for
`gs://`, delete it by hand.
"""

import hashlib
import os
import re
import socket
from collections.abc import Collection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

import numpy as np

from ssljax import paths
from ssljax.data import cache, memory, tensorflow_import, tfds_parts
from ssljax.data.arrays import Arrays
from ssljax.data.images import fit
from ssljax.data.tfds_parts import Splits
from ssljax.errors import UsageError
from ssljax.log import LOG

_FORMAT = 2  # version of the cached arrays; a change invalidates old caches
_EDGE = 2**14  # bytes at both ends of a prepared file that are hashed to identify it


def read(
    name: str,
    splits: Splits | None,
    *,
    data_dir: str,
    image_size: int = 0,
    keyed_by_index: bool = False,
) -> Arrays:
    """Reads an entire TFDS data set, downloading and preparing it if necessary.

    Args:
      name: as accepted by `tfds.builder`: `name[/config][:version]`; it has `image` and `label`.
      splits: the splits to read; None: the default splits, and the others are logged.
      data_dir: directory of prepared data sets, see `directory`.
      image_size: side in pixels that images are cropped and resized to; 0: images keep their size.
      keyed_by_index: whether TFDS shuffled the records by index, so that their order can be
        restored without an `id`.

    Returns:
      images `[N, H, W, C]` uint8, labels `[N]` int64 (-1: none), test_images, test_labels,
      class_names `[C]` str. Records are in original order if their `id` ends in their number.

    Raises:
      UsageError: the data set cannot be prepared, or is not labelled 8-bit images of one size.
    """
    data_dir = directory(data_dir)
    request = f"{_FORMAT} {name} {splits} {image_size}"

    def source() -> str:
        return f"{request} {fingerprint(data_dir, name)}"

    def build() -> Arrays:
        builder = prepared(name, data_dir)
        features = builder.info.features
        tfds_parts.require_labeled_images(name, features)
        chosen = splits or tfds_parts.usual(builder.info.splits)
        tfds_parts.require_splits(name, builder, chosen)
        test = tfds_parts.first_labeled(chosen.test, lambda split: _labels(name, builder, split))

        def decode(*names: str) -> Arrays:
            return _decode(name, builder, names, image_size, keyed_by_index)

        arrays = decode(*chosen.train, *chosen.unlabeled)
        known = sum(builder.info.splits[split].num_examples for split in chosen.train)
        arrays["labels"][known:] = -1
        tested = decode(*([test] if test else []))
        labeled = tested["labels"] >= 0
        labels = arrays["labels"], tested["labels"]
        return {
            **arrays,
            **{f"test_{key}": value[labeled] for key, value in tested.items()},
            "class_names": tfds_parts.class_names(name, features, *labels),
            "not_read": tfds_parts.not_read(builder.info.splits, chosen, test),
        }

    file = re.sub(r"\W", "_", f"{name} {splits.train[-1] if splits else 'train'} {image_size}")
    arrays = cache.load_or_build(cache_files(data_dir, f"{file}.npz"), source, build)
    others = arrays.pop("not_read").tolist()
    if splits is None:
        tfds_parts.tell_of_others(name, others)
    return arrays


def directory(data_dir: str) -> str:
    """Returns the directory of prepared data sets; "": TFDS's default. `gs://…` is kept as is."""
    data_dir = data_dir or os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")
    data_dir = paths.expand(data_dir, "config.data_dir")
    return data_dir if "://" in data_dir else str(Path(data_dir).absolute())


def cache_files(data_dir: str, file: str) -> list[Path]:
    """Returns possible cache locations for a data_dir; the last one is writable."""
    local = Path(data_dir)
    beside = [] if "://" in data_dir else [local / "ssljax" / file]
    parent = next((p for p in (local, *local.parents) if p.is_dir()), local)
    # os.access returns true for root even if the owner made the folder read-only.
    if beside and os.access(parent, os.W_OK) and parent.stat().st_mode & 0o222:
        return beside
    try:
        user = paths.expand(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "XDG_CACHE_HOME")
    except UsageError:  # the home directory is unknown
        return beside
    name = hashlib.sha256(data_dir.encode()).hexdigest()[:16]
    return [*beside, Path(user, "ssljax", name, file)]


def fingerprint(data_dir: str, name: str) -> str:
    """Returns a hash of a local data set's prepared files, the same for a copy. Needs no
    TensorFlow."""
    folder = Path(data_dir, re.split("[/:]", name)[0])
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            digest.update(f"{path.relative_to(folder)} {size} ".encode())
            for start in (0, max(0, size - _EDGE)):
                file.seek(start)
                digest.update(file.read(_EDGE))
    return digest.hexdigest()


def prepared(name: str, data_dir: str) -> Any:
    """Returns the TFDS builder of `name`, with its data ready to read."""
    tfds = tensorflow_import.require("tensorflow_datasets", f"config.dataset {name}")
    tfds_parts.require_own_features(name, data_dir)
    try:
        builder = tfds.builder(name, data_dir=data_dir)
    except Exception as error:  # TFDS raises many types for unknown names, versions and configs
        raise UsageError(
            f"config.dataset {name}: TFDS has no such data set ({_line(error)})"
        ) from error
    try:
        if not builder.is_prepared():
            LOG.info(f"TFDS prepares {name} in {data_dir}")
            _require_hosts(builder)
            builder.download_and_prepare()
    except Exception as error:  # network, disk, archive and other errors of the data set's script
        raise UsageError(
            f"config.dataset {name} is not in {data_dir}, and TFDS could not prepare it: "
            f'{_line(error)}. Prepare it where there is a network with `python -c "import '
            f"tensorflow_datasets as tfds; tfds.load('{name}', data_dir='tfds')\"`, and give the "
            "folder's copy here as config.data_dir"
        ) from error
    return builder


def _require_hosts(builder: Any) -> None:
    """Raises OSError at once without a network; TFDS would retry for minutes."""
    if not getproxies():
        for host in {urlsplit(url).hostname for url in builder.url_infos or {}}:
            try:
                socket.getaddrinfo(host, 443)
            except OSError as error:
                raise OSError(f"no network, {host} cannot be found") from error


def _line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text if len(text) <= 200 else text[:200] + '…'}"


def _decode(
    name: str, builder: Any, splits: Collection[str], image_size: int, keyed_by_index: bool
) -> Arrays:
    """Decodes images and labels of some splits, concatenated, each in original order."""
    shape = _shape(name, builder, image_size)
    sizes = [builder.info.splits[split].num_examples for split in splits]
    memory.require(
        f"config.dataset {name}", sum(sizes) * int(np.prod(shape)), memory.host_bytes(), "memory"
    )
    images = np.empty((sum(sizes), *shape), np.uint8)
    labels = np.empty(sum(sizes), np.int64)
    ends = np.cumsum(sizes)
    for split, start, end in zip(splits, ends - sizes, ends, strict=True):
        ids = _fill(name, builder, split, images[start:end], labels[start:end], image_size > 0)
        order = _original_order(split, end - start, ids, keyed_by_index)
        images[start:end] = images[start:end][order]
        labels[start:end] = labels[start:end][order]
    return {"images": images, "labels": labels}


def _shape(name: str, builder: Any, image_size: int) -> tuple[int, int, int]:
    height, width, channels = builder.info.features["image"].shape
    if not image_size and None in (height, width):
        raise UsageError(
            f"config.image_size is 0, but the images of {name} have several sizes; allowed: from 1 "
            "up, the side in pixels that they get"
        )
    return (image_size, image_size, channels) if image_size else (height, width, channels)


def _labels(name: str, builder: Any, split: str) -> np.ndarray:
    batches = _records(name, builder, split, {"label"}, 500)
    return np.concatenate([np.zeros(0, np.int64), *(batch["label"] for batch in batches)])


def _fill(name, builder, split, images, labels, resize):
    """Writes the split's records into `images` and `labels` as read; returns their ids."""
    from tqdm import tqdm

    wanted = {"image", "label", "id"} & set(builder.info.features)
    ids, start = [], 0
    with tqdm(total=len(labels), desc=f"decoding {split}", unit="image", disable=None) as bar:
        for batch in _records(name, builder, split, wanted, 1 if resize else 500):
            end = start + len(batch["label"])
            images[start:end] = (
                fit(batch["image"][0], images.shape[1]) if resize else batch["image"]
            )
            labels[start:end] = batch["label"]
            ids += list(batch.get("id", ()))
            bar.update(end - start)
            start = end
    if start < len(labels):
        raise UsageError(
            f"config.dataset {name}: split {split} has {start} records, not {len(labels)}: its "
            "files are damaged"
        )
    return ids


def _records(name, builder, split, features, size):
    """Yields some features of a split's records, in batches."""
    import tensorflow_datasets as tfds

    decoders = tfds.decode.PartialDecoding(dict.fromkeys(features, True))
    records = builder.as_dataset(split=split, shuffle_files=False, decoders=decoders)
    try:
        yield from records.batch(size).prefetch(2).as_numpy_iterator()
    except Exception as error:  # TensorFlow's errors about files and images
        raise UsageError(
            f"config.dataset {name}: split {split} cannot be read: {_line(error)}"
        ) from error


def _original_order(split: str, size: int, ids: list, keyed_by_index: bool) -> np.ndarray:
    """Returns the positions at which the original 1st, 2nd, … record was read.

    When TFDS prepares a data set, it shuffles records by the MD5 of split name and key. Ids of
    CIFAR and SVHN (`train_16399`) end in the original number; STL-10 has no ids, but its keys are
    this number.
    """
    if keyed_by_index:
        digests = [hashlib.md5(f"{split}{i}".encode()).hexdigest() for i in range(size)]
        return np.argsort(np.argsort(digests))
    numbers = [re.fullmatch(rb".*_(\d+)", x) for x in ids if isinstance(x, bytes)]
    if not numbers or not all(numbers):
        return np.arange(size)
    return np.argsort([int(match[1]) for match in numbers if match], kind="stable")
