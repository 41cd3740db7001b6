"""Converts a prepared TFDS data set to an .npz for `--config.dataset=npz:…`, without TensorFlow.

    python -m benchmarks.tfrecords_npz <data_dir>/cifar10/3.0.2 cifar10.npz [--limit=1000]

For machines with JAX only. Reads the TFRecords of the splits `train` and `test`, in the order of
the numbers at the end of their ids, and decodes with Pillow: PNG exactly as TensorFlow, JPEG up to
rounding.
"""

import argparse
import io
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def main() -> None:
    """Converts."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, help="the data set's, with its version")
    parser.add_argument("output", type=Path)
    parser.add_argument("--limit", type=int, help="the first so many images of each split")
    args = parser.parse_args()
    train, test = (read(args.folder, split, args.limit) for split in ("train", "test"))
    np.savez(
        args.output,
        train_images=train[0],
        train_labels=train[1],
        test_images=test[0],
        test_labels=test[1],
    )
    print(f"{args.output}: {len(train[1])} training and {len(test[1])} test images")


def read(folder: Path, split: str, limit: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Returns images uint8 `[N, H, W, C]` and labels int64 `[N]` of a split."""
    examples = [
        _example(record)
        for path in sorted(folder.glob(f"*-{split}.tfrecord-*"))
        for record in _records(path)
    ]
    examples.sort(key=lambda x: int(x["id"].rpartition(b"_")[2]))
    examples = examples[:limit]
    images = [np.asarray(Image.open(io.BytesIO(x["image"]))) for x in examples]
    return np.stack(images), np.array([x["label"] for x in examples])


def _records(path: Path) -> Iterator[memoryview]:
    """Yields the records of a file; each has its length before it, and checksums around it."""
    file, start = memoryview(path.read_bytes()), 0
    while start < len(file):
        (length,) = struct.unpack_from("<Q", file, start)
        yield file[start + 12 : start + 12 + length]
        start += 12 + length + 4


def _example(record: memoryview) -> dict[str, Any]:
    """Parses a `tf.train.Example` whose features hold one byte string or one integer each."""
    found = {}
    for _, features in _fields(record):
        for _, entry in _fields(features):
            name, feature = (value for _, value in _fields(entry))
            ((kind, values),) = _fields(feature)
            ((_, value),) = _fields(values)
            if kind == 3:  # an Int64List, packed or not
                value = value if isinstance(value, int) else _varint(value, 0)[0]
            found[bytes(name).decode()] = value if kind == 3 else bytes(value)
    return found


def _fields(message: memoryview) -> Iterator[tuple[int, Any]]:
    """Yields a protocol buffer's fields by number: integers, or length-delimited bytes."""
    start = 0
    while start < len(message):
        key, start = _varint(message, start)
        number, start = _varint(message, start)
        if key & 7 == 2:
            yield key >> 3, message[start : start + number]
            start += number
        else:
            yield key >> 3, number


def _varint(message: memoryview, start: int) -> tuple[int, int]:
    """Decodes an integer of seven bits per byte, lowest first; returns it and its end position."""
    value = shift = 0
    while True:
        byte = message[start]
        value, shift, start = value | (byte & 127) << shift, shift + 7, start + 1
        if byte < 128:
            return value, start


if __name__ == "__main__":
    main()
