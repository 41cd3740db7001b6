"""An index of the encoded images of a large data set, for reading any of them at any time.

Batches in any order, reproducible after an interruption, then need no shuffle buffers and no copies
of parts of the data. A data set prepared by TFDS is scanned once for the index, which is cached
beside it.
"""

import functools
import io
import os
import re
import struct
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from ssljax.data import cache, images, tfds_parts, tfds_source
from ssljax.data.arrays import Arrays
from ssljax.data.folder import Files
from ssljax.errors import UsageError
from ssljax.log import printable, quiet_import

_FORMAT = 2  # version of the cached index; a change invalidates old caches
_HEADER, _CHECKSUM = 12, 4  # bytes around a record of a TFRecord file: length and checksums


class ImageIndex(NamedTuple):
    """N encoded images, in F files."""

    files: np.ndarray  # [F] str, paths or URLs such as gs://
    file_index: np.ndarray  # [N] int32, into files
    offset: np.ndarray  # [N] int64, position of the image in bytes
    length: np.ndarray  # [N] int64, bytes of the image, -1: the entire file
    labels: np.ndarray  # [N] int64, -1: none
    names: np.ndarray  # [N] str, file names in the data set, or other identifiers

    def pick(self, chosen: np.ndarray) -> "ImageIndex":
        """Returns some of the images, in the same files."""
        picked = (array[chosen] for array in self[1:])
        return ImageIndex(self.files, *picked)

    @property
    def are_files(self) -> bool:
        """Whether each image is a separate file, whose content is not trusted."""
        return bool(np.all(self.length < 0))

    def describe(self, index: int) -> str:
        """Returns an image's name for messages: its path, or its name in the data set."""
        is_file = self.length[index] < 0
        return printable(self.files[self.file_index[index]] if is_file else self.names[index])

    def damage(self, index: int) -> str:
        """Returns why an image file is unreadable or undecodable; "": it is neither, or no file."""
        if self.length[index] >= 0:
            return ""
        try:
            images.decode(io.BytesIO(self.read(index)))
        except OSError as error:
            return error.strerror or str(error)
        except ValueError as error:
            return str(error)
        return ""

    def read(self, index: int) -> bytes:
        """Returns the encoded image."""
        path, offset, length = (
            self.files[self.file_index[index]],
            self.offset[index],
            self.length[index],
        )
        if "://" not in path:
            with open(path, "rb", buffering=0) as file:
                return os.pread(file.fileno(), length, offset) if length >= 0 else file.read()
        with quiet_import():
            import tensorflow as tf

        with tf.io.gfile.GFile(path, "rb") as remote:
            remote.seek(offset)
            return remote.read(length)


_NONE = ImageIndex(
    files=np.zeros(0, str), file_index=np.zeros(0, np.int32), offset=np.zeros(0, np.int64),
    length=np.zeros(0, np.int64), labels=np.zeros(0, np.int64), names=np.zeros(0, str),
)  # fmt: skip


def of_files(files: Files) -> ImageIndex:
    """Builds an index with one image per file."""
    n = len(files)
    paths = np.array([str(path) for path, _ in files], str)
    labels = np.array([c for _, c in files], np.int64)
    nothing = np.zeros(n, np.int64)
    names = np.array([path.name for path, _ in files], str)
    return ImageIndex(paths, np.arange(n, dtype=np.int32), nothing, nothing - 1, labels, names)


def of_tfds(name: str, data_dir: str) -> tuple[ImageIndex, ImageIndex, list[str]]:
    """Returns the training and test records of a prepared TFDS data set, and its class names.

    Args:
      name: as accepted by `tfds.builder`; the data set has `image` and `label`.
      data_dir: directory of prepared data sets, see `tfds_source.directory`.

    Raises:
      UsageError: it is not prepared, not in TFRecord files, or has no images and labels.
    """
    data_dir = tfds_source.directory(data_dir)

    def source() -> str:
        return f"records {_FORMAT} {name} {tfds_source.fingerprint(data_dir, name)}"

    file = re.sub(r"\W", "_", f"{name} records") + ".npz"
    paths = tfds_source.cache_files(data_dir, file)
    arrays = cache.load_or_build(paths, source, lambda: _build(name, data_dir))
    tfds_parts.tell_of_others(name, arrays["not_read"].tolist())
    train, test = (
        ImageIndex(**{field: arrays[f"{part}_{field}"] for field in ImageIndex._fields})
        for part in ("train", "test")
    )
    classes = arrays["class_names"].tolist()
    return _moved(train, "", f"{data_dir}/"), _moved(test, "", f"{data_dir}/"), classes


def _build(name: str, data_dir: str) -> Arrays:
    """Builds the cached arrays of a data set. File paths are relative to `data_dir`."""
    builder = tfds_source.prepared(name, data_dir)
    _require_records(name, builder)
    splits = tfds_parts.usual(builder.info.splits)
    tfds_parts.require_splits(name, builder, splits)

    @functools.cache
    def index(split: str) -> ImageIndex:
        return _index([str(path) for path in builder.info.splits[split].filepaths])

    unlabeled = [index(split) for split in splits.unlabeled]
    hidden = [each._replace(labels=np.full_like(each.labels, -1)) for each in unlabeled]
    train = _joined([*map(index, splits.train), *hidden])
    tested = tfds_parts.first_labeled(splits.test, lambda split: index(split).labels)
    test = _joined([index(tested)] if tested else [])
    test = test.pick(test.labels >= 0)
    names = tfds_parts.class_names(name, builder.info.features, train.labels, test.labels)
    arrays = {
        f"{part}_{field}": array
        for part, each in (("train", train), ("test", test))
        for field, array in _moved(each, f"{data_dir}/", "")._asdict().items()
    }
    others = tfds_parts.not_read(builder.info.splits, splits, tested)
    return {**arrays, "class_names": names, "not_read": others}


def _require_records(name: str, builder: Any) -> None:
    """Raises UsageError unless the data are encoded images and labels in TFRecord files."""
    features, form = builder.info.features, builder.info.file_format.value
    tfds_parts.require_labeled_images(name, features)
    if type(features["image"]).__name__ != "Image":
        raise UsageError(
            f"config.dataset {name} has images of the kind {type(features['image']).__name__}; "
            "allowed with config.stream: Image, which is encoded"
        )
    if form != "tfrecord":
        raise UsageError(
            f"config.dataset {name} is prepared in files of the format {form}; allowed: tfrecord"
        )


def _moved(index: ImageIndex, old: str, new: str) -> ImageIndex:
    """Returns the index of a data set whose files moved from `old` to `new`."""
    files = [new + path.removeprefix(old) for path in index.files.tolist()]
    return index._replace(files=np.array(files, str))


def _joined(indices: Sequence[ImageIndex]) -> ImageIndex:
    """Concatenates several indices."""
    indices = [_NONE, *indices]
    before = np.cumsum([0, *(len(index.files) for index in indices)])
    shifted = [
        index._replace(file_index=index.file_index + np.int32(count))
        for index, count in zip(indices, before[:-1], strict=True)
    ]
    return ImageIndex(*(np.concatenate(arrays) for arrays in zip(*shifted, strict=True)))


def _index(paths: list[str]) -> ImageIndex:
    def entries(path: str) -> list[tuple[int, int, int, str]]:
        try:
            return list(_entries(path))
        except Exception as error:  # files can be damaged or missing
            reason = " ".join(f"{type(error).__name__} {error}".split())[:200]
            raise UsageError(f"{path} cannot be read: {reason}") from error

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        bar = tqdm(pool.map(entries, paths), "indexing records", len(paths), disable=None)
        per_file = list(bar)
    rows = [entry for file_entries in per_file for entry in file_entries]
    dtypes = {"offset": np.int64, "length": np.int64, "labels": np.int64, "names": np.str_}
    columns: dict[str, Any] = {
        name: np.array([row[i] for row in rows], dtype)
        for i, (name, dtype) in enumerate(dtypes.items())
    }
    file_index = np.repeat(np.arange(len(paths), dtype=np.int32), [len(x) for x in per_file])
    return ImageIndex(files=np.array(paths, str), file_index=file_index, **columns)


def _entries(path: str) -> Iterator[tuple[int, int, int, str]]:
    """Yields offset, length, label and name of each image in a TFRecord file."""
    with quiet_import():
        import tensorflow as tf

    position = 0
    with tf.io.gfile.GFile(path, "rb") as file:
        while header := file.read(_HEADER):
            (size,) = struct.unpack("<Q", header[:8])
            record = file.read(size)
            file.read(_CHECKSUM)
            feature = tf.train.Example.FromString(record).features.feature
            image = feature["image"].bytes_list.value[0]
            name = (
                _text(feature, "file_name")
                or _text(feature, "id")
                or f"{Path(path).name}:{position}"
            )
            # The record contains the encoded image verbatim.
            yield position + _HEADER + record.index(image), len(image), _label(feature), name
            position += _HEADER + size + _CHECKSUM


def _label(feature: Any) -> int:
    return feature["label"].int64_list.value[0]


def _text(feature: Any, key: str) -> str:
    return feature[key].bytes_list.value[0].decode(errors="replace") if key in feature else ""
