"""Data sets that TensorFlow Datasets (TFDS) prepares, decoded once and cached.

The cache is `<data_dir>/ssljax/<name>.npz`. Where that cannot be written (a read-only folder,
`gs://`), it is in `$XDG_CACHE_HOME/ssljax` (by default `~/.cache/ssljax`), in a folder a data_dir.
A cache notices when the prepared files change; for `gs://`, delete it by hand.
"""

import hashlib
import os
import re
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

import numpy as np

from ssljax.data import cache, memory, tensorflow_import
from ssljax.data.arrays import Arrays
from ssljax.data.images import fit
from ssljax.errors import UsageError
from ssljax.log import LOG

_FORMAT = 1  # of the cached arrays; a change makes old caches stale


def read(
    name: str,
    *,
    train: Sequence[str],
    test: Sequence[str],
    data_dir: str,
    image_size: int = 0,
    keyed_by_index: bool = False,
) -> Arrays:
    """Reads a TFDS data set whole, downloading and preparing it if need be.

    Args:
      name: as `tfds.builder` takes it: `name[/config][:version]`; has `image` and `label`.
      train: the splits whose records, one split after the other, are the training records.
      test: names for the split of the test records: the first that there is; none if there is none.
      data_dir: where prepared data sets are, see `directory`.
      image_size: side in pixels to which images are cropped and resized; 0: as they are.
      keyed_by_index: TFDS shuffled the records by their index, so that their order can be restored
        without an `id`.

    Returns:
      images `[N, H, W, C]` uint8, labels `[N]` int64 (-1: none), test_images, test_labels,
      class_names `[C]` str. Records are in original order where an `id` ends in their number.

    Raises:
      UsageError: the data set cannot be prepared, or it is no labelled 8-bit images of one size.
    """
    data_dir = directory(data_dir)
    request = f"{_FORMAT} {name} {list(train)} {list(test)} {image_size}"

    def source() -> str:
        return f"{request} {fingerprint(data_dir, name)}"

    def build() -> Arrays:
        builder = prepared(name, data_dir)
        arrays = _decode(name, builder, list(train), image_size, keyed_by_index)
        found = [split for split in test if split in builder.info.splits][:1]
        tested = _decode(name, builder, found, image_size, keyed_by_index)
        label = builder.info.features["label"]
        return {
            **arrays,
            **{f"test_{key}": value for key, value in tested.items()},
            "class_names": np.array(label.names or [str(c) for c in range(label.num_classes)]),
        }

    path = cache_folder(data_dir) / (
        re.sub(r"\W", "_", f"{name} {train[-1]} {image_size}") + ".npz"
    )
    return cache.load_or_build(path, source, build)


def directory(data_dir: str) -> str:
    """Where prepared data sets are; "" is TFDS's own choice. `gs://…` passes through."""
    data_dir = data_dir or os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")
    return data_dir if "://" in data_dir else str(Path(data_dir).expanduser().absolute())


def cache_folder(data_dir: str) -> Path:
    """Where what was read once of a data_dir is cached."""
    local = Path(data_dir)
    parent = next((p for p in (local, *local.parents) if p.is_dir()), local)
    # os.access is true for root even where the owner asked for read-only.
    if "://" not in data_dir and os.access(parent, os.W_OK) and parent.stat().st_mode & 0o222:
        return local / "ssljax"
    user = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    return user / "ssljax" / hashlib.sha256(data_dir.encode()).hexdigest()[:16]


def fingerprint(data_dir: str, name: str) -> str:
    """Changes with the prepared files of a local data set; needs no TensorFlow."""
    folder = Path(data_dir, re.split("[/:]", name)[0])
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    stats = [(str(p.relative_to(folder)), p.stat().st_size, p.stat().st_mtime_ns) for p in files]
    return hashlib.sha256(repr(stats).encode()).hexdigest()


def prepared(name: str, data_dir: str) -> Any:
    """The TFDS builder of `name`, its data ready to read."""
    tfds = tensorflow_import.require("tensorflow_datasets", f"config.dataset {name}")
    try:
        builder = tfds.builder(name, data_dir=data_dir)
    except Exception as error:  # TFDS: unknown names, versions and configs are of many types
        raise UsageError(f"config.dataset {name}: TFDS has none ({_line(error)})") from error
    try:
        if not builder.is_prepared():
            LOG.info(f"TFDS prepares {name} in {data_dir}")
            _require_hosts(builder)
            builder.download_and_prepare()
    except Exception as error:  # network, disk, archives: whatever a data set's script raises
        raise UsageError(
            f"config.dataset {name} is not in {data_dir}, and TFDS could not prepare it: "
            f'{_line(error)}. Prepare it where there is a network with `python -c "import '
            f"tensorflow_datasets as tfds; tfds.load('{name}', data_dir='tfds')\"`, and give the "
            "folder's copy here as config.data_dir"
        ) from error
    return builder


def _require_hosts(builder: Any) -> None:
    """Without a network TFDS tries for minutes; to look up the names of its hosts takes moments."""
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
    name: str, builder: Any, splits: list[str], image_size: int, keyed_by_index: bool
) -> Arrays:
    """Images and labels of some splits, one after the other, each in original order."""
    shape = _shape(name, builder, image_size)
    for split in splits:
        if split not in builder.info.splits:
            raise UsageError(
                f"config.dataset {name}: TFDS has no split {split!r}; there are: "
                f"{', '.join(sorted(builder.info.splits))}"
            )
    sizes = [builder.info.splits[split].num_examples for split in splits]
    memory.require(
        f"config.dataset {name}", sum(sizes) * int(np.prod(shape)), memory.host_bytes(), "memory"
    )
    images = np.empty((sum(sizes), *shape), np.uint8)
    labels = np.empty(sum(sizes), np.int64)
    ends = np.cumsum(sizes)
    for split, start, end in zip(splits, ends - sizes, ends, strict=True):
        ids = _fill(builder, split, images[start:end], labels[start:end], resize=image_size > 0)
        order = _original_order(split, end - start, ids, keyed_by_index)
        images[start:end] = images[start:end][order]
        labels[start:end] = labels[start:end][order]
    return {"images": images, "labels": labels}


def _shape(name: str, builder: Any, image_size: int) -> tuple[int, int, int]:
    features = builder.info.features
    if not {"image", "label"} <= set(features):
        raise UsageError(
            f"config.dataset {name} has no image and label; it has: {', '.join(sorted(features))}"
        )
    height, width, channels = features["image"].shape
    if features["image"].np_dtype != np.uint8 or channels not in (1, 3):
        raise UsageError(
            f"config.dataset {name} has {features['image'].np_dtype} images of {channels} "
            "channels; allowed: uint8, 1 or 3"
        )
    if not image_size and None in (height, width):
        raise UsageError(
            f"config.image_size is 0, but the images of {name} have several sizes; allowed: from 1 "
            "up, the side in pixels that they get"
        )
    return (image_size, image_size, channels) if image_size else (height, width, channels)


def _fill(builder, split, images, labels, *, resize):
    """Writes the split's records into `images` and `labels` as they come; returns their ids."""
    import tensorflow_datasets as tfds
    from tqdm import tqdm

    wanted = {"image", "label", "id"} & set(builder.info.features)
    decoders = tfds.decode.PartialDecoding(dict.fromkeys(wanted, True))
    records = builder.as_dataset(split=split, shuffle_files=False, decoders=decoders)
    ids, start = [], 0
    with tqdm(total=len(labels), desc=f"decoding {split}", unit="image", disable=None) as bar:
        for batch in records.batch(1 if resize else 500).prefetch(2).as_numpy_iterator():
            end = start + len(batch["label"])
            images[start:end] = (
                fit(batch["image"][0], images.shape[1]) if resize else batch["image"]
            )
            labels[start:end] = batch["label"]
            ids += list(batch.get("id", ()))
            bar.update(end - start)
            start = end
    return ids


def _original_order(split: str, size: int, ids: list, keyed_by_index: bool) -> np.ndarray:
    """Positions at which the original 1st, 2nd, … record was read.

    TFDS shuffles records by the MD5 of split name and key when it prepares a data set. CIFAR's and
    SVHN's ids (`train_16399`) end in the original number; STL-10 has no ids, but keys that are this
    number.
    """
    if keyed_by_index:
        digests = [hashlib.md5(f"{split}{i}".encode()).hexdigest() for i in range(size)]
        return np.argsort(np.argsort(digests))
    numbers = [re.fullmatch(rb".*_(\d+)", x) for x in ids if isinstance(x, bytes)]
    if not numbers or not all(numbers):
        return np.arange(size)
    return np.argsort([int(match[1]) for match in numbers if match], kind="stable")
