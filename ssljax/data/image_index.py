"""Where the encoded images of a large data set lie, so that any of them can be read at any time.

Batches in any order, and the same again after an interruption, then need no shuffle buffers and no
copies of parts of the data. A data set that TFDS has prepared is read through once for it; the
index is cached beside it.
"""

import io
import os
import re
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from ssljax.data import cache, images, tfds_source
from ssljax.data.arrays import Arrays
from ssljax.data.folder import Files
from ssljax.errors import UsageError
from ssljax.log import printable, quiet_import

_FORMAT = 1  # of the cached index; a change makes old caches stale
_HEADER, _CHECKSUM = 12, 4  # bytes around a record of a TFRecord file: its length, checksums


class ImageIndex(NamedTuple):
    """N encoded images, in F files."""

    files: np.ndarray  # [F] str, paths; gs:// and the like too
    file_index: np.ndarray  # [N] int32, into files
    offset: np.ndarray  # [N] int64, bytes before the image
    length: np.ndarray  # [N] int64, bytes of the image, -1: the whole file
    labels: np.ndarray  # [N] int64, -1: none
    names: np.ndarray  # [N] str, file names of the data set, or what else tells the image

    @property
    def are_files(self) -> bool:
        """Whether each image is a file of its own, of anybody's making."""
        return bool(np.all(self.length < 0))

    def describe(self, index: int) -> str:
        """What to call an image: the path of its file, or its name in the data set."""
        is_file = self.length[index] < 0
        return printable(self.files[self.file_index[index]] if is_file else self.names[index])

    def damage(self, index: int) -> str:
        """Why the file of an image cannot be read and decoded; "": it can, or it has no own one."""
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
        """The encoded image."""
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


def of_files(files: Files) -> ImageIndex:
    """One image per file."""
    n = len(files)
    paths = np.array([str(path) for path, _ in files], str)
    labels = np.array([c for _, c in files], np.int64)
    nothing = np.zeros(n, np.int64)
    names = np.array([path.name for path, _ in files], str)
    return ImageIndex(paths, np.arange(n, dtype=np.int32), nothing, nothing - 1, labels, names)


def of_tfds(name: str, splits: list[str], data_dir: str) -> tuple[ImageIndex, list[str]]:
    """The first of `splits` that a prepared TFDS data set has, without records if it has none, and
    the names of its classes.

    Args:
      name: as `tfds.builder` takes it; has `image` and `label`.
      data_dir: where prepared data sets are, see `tfds_source.directory`.

    Raises:
      UsageError: it is not prepared, not in TFRecord files, or has no images and labels.
    """
    data_dir = tfds_source.directory(data_dir)
    request = f"records {_FORMAT} {name} {splits}"

    def source() -> str:
        return f"{request} {tfds_source.fingerprint(data_dir, name)}"

    def build() -> Arrays:
        builder = tfds_source.prepared(name, data_dir)
        features = builder.info.features
        if not {"image", "label"} <= set(features):
            raise UsageError(
                f"config.dataset {name} has no image and label; it has: "
                f"{', '.join(sorted(features))}"
            )
        if builder.info.file_format.value != "tfrecord":
            raise UsageError(
                f"config.dataset {name} is prepared in files of the format "
                f"{builder.info.file_format.value}; allowed: tfrecord"
            )
        found = [split for split in splits if split in builder.info.splits][:1]
        paths = [str(p) for split in found for p in builder.info.splits[split].filepaths]
        classes = features["label"].names or map(str, range(features["label"].num_classes))
        return {**_index(paths)._asdict(), "class_names": np.array(list(classes))}

    file = re.sub(r"\W", "_", f"{name} {splits[0]} records") + ".npz"
    arrays = cache.load_or_build(tfds_source.cache_folder(data_dir) / file, source, build)
    classes = arrays.pop("class_names").tolist()
    return ImageIndex(**arrays), classes


def _index(paths: list[str]) -> ImageIndex:
    def entries(path: str) -> list[tuple[int, int, int, str]]:
        return list(_entries(path))

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
    """Offset and length of each image in a TFRecord file, its label and its name."""
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
            # The image is in the record as it is.
            yield position + _HEADER + record.index(image), len(image), _label(feature), name
            position += _HEADER + size + _CHECKSUM


def _label(feature: Any) -> int:
    return feature["label"].int64_list.value[0]


def _text(feature: Any, key: str) -> str:
    return feature[key].bytes_list.value[0].decode() if key in feature else ""
