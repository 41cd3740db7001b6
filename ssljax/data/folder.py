"""A folder of one's own images.

    train/<class>/*       labelled images; classes are numbered in the order of their names
    unlabeled/**          images without labels, optional
    valid/<class>/*       validation images, optional
    test/<class>/*        test images, optional

Files of any format that Pillow reads, of any size. Records are in the order of their paths on any
machine, so that the same names give the same labelled set.
"""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from ssljax.data import images, memory
from ssljax.data.cache import Arrays
from ssljax.errors import UsageError
from ssljax.log import LOG

Files = list[tuple[Path, int]]  # image files and the numbers of their classes, -1: none


def read(folder: Path, *, image_size: int) -> tuple[Arrays, int]:
    """Reads a folder whole.

    Args:
      image_size: side in pixels of the squares that images are cropped and resized to; 0: as they
        are, all of one size.

    Returns:
      Arrays: images `[N, H, W, C]` uint8 of train, unlabeled and valid, labels `[N]` int64 (-1:
      none), test_images, test_labels, class_names; and the number of validation images, the last
      ones. C is 1 where all files are grey, else 3.

    Raises:
      UsageError: a folder or file is missing, unreadable, empty or not where it should be.
    """
    classes, records, tests, num_valid = listing(folder)
    pixels = _decode([path for path, _ in records + tests], image_size)
    arrays = {
        "images": pixels[: len(records)],
        "labels": np.array([c for _, c in records], np.int64),
        "test_images": pixels[len(records) :],
        "test_labels": np.array([c for _, c in tests], np.int64),
        "class_names": np.array(classes),
    }
    return arrays, num_valid


def listing(folder: Path) -> tuple[list[str], Files, Files, int]:
    """What is in a folder: its classes; the files of train, unlabeled and valid; those of test; how
    many of the former are for validation, the last ones.

    Raises:
      UsageError: a folder or file is missing, unreadable or not where it should be.
    """
    try:
        classes = _classes(folder)
        parts = {part: _labeled(folder / part, classes) for part in ("train", "valid", "test")}
        parts["unlabeled"] = [(path, -1) for path in _files(folder / "unlabeled")]
    except OSError as error:
        raise UsageError(f"{error.filename} cannot be read: {error.strerror}") from error
    for c, count in enumerate(np.bincount([c for _, c in parts["train"]], minlength=len(classes))):
        if not count:
            raise UsageError(f"{folder / 'train' / classes[c]} holds no image: a class needs one")
    records = parts["train"] + parts["unlabeled"] + parts["valid"]
    return classes, records, parts["test"], len(parts["valid"])


def _classes(folder: Path) -> list[str]:
    train = folder / "train"
    if not train.is_dir():
        raise UsageError(f"config.dataset folder:{folder}: there is no folder {train}")
    classes = sorted(p.name for p in _visible(train) if p.is_dir())
    if not classes:
        raise UsageError(f"{train} holds no class; allowed: a folder of images for each")
    return classes


def _labeled(folder: Path, classes: Sequence[str]) -> list[tuple[Path, int]]:
    """The image files of `folder/<class>` and the numbers of their classes."""
    if not folder.is_dir():
        return []
    for entry in _visible(folder):
        if not entry.is_dir():
            raise UsageError(f"{entry} is in no class; allowed: {folder}/<class>/")
        if entry.name not in classes:
            raise UsageError(
                f"{entry} is a class that train does not have; allowed: {', '.join(classes)}"
            )
    return [(path, c) for c, name in enumerate(classes) for path in _files(folder / name)]


def _files(folder: Path) -> list[Path]:
    """The image files in `folder` and below; none where there is no such folder."""
    if not folder.is_dir():
        return []
    extensions = Image.registered_extensions()
    paths = list(_walk(folder, ()))
    others = [path for path in paths if path.suffix.lower() not in extensions]
    if others:
        LOG.warning(f"warning: {len(others)} files in {folder} are no images, such as {others[0]}")
    return [path for path in paths if path.suffix.lower() in extensions]


def _walk(folder: Path, above: tuple[Path, ...]) -> Iterator[Path]:
    real = folder.resolve()
    if real in above:
        raise UsageError(f"{folder} is a symlink loop: it leads back to {real}")
    for entry in _visible(folder):
        if entry.is_dir():
            yield from _walk(entry, (*above, real))
        elif entry.exists():
            yield entry
        else:
            raise UsageError(f"{entry} is a link that leads to no file")


def _visible(folder: Path) -> list[Path]:
    return sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))


def _decode(paths: Sequence[Path], image_size: int) -> np.ndarray:
    """All files as `[N, H, W, C]` uint8."""
    shape = (image_size,) * 2 if image_size else images.read(paths[0])[0].shape[:2]
    size = len(paths) * shape[0] * shape[1] * 3
    memory.require(f"{len(paths)} images", size, memory.host_bytes(), "memory")
    pixels = np.empty((len(paths), *shape, 3), np.uint8)

    def load(i: int) -> str:
        image, mode = images.read(paths[i])
        if not image_size and image.shape[:2] != shape:
            raise UsageError(
                f"config.image_size is 0, but {paths[i]} has {image.shape[0]}×{image.shape[1]} "
                f"pixels and {paths[0]} {shape[0]}×{shape[1]}; allowed: from 1 up, the side in "
                "pixels that all get"
            )
        pixels[i] = images.fit(image, image_size) if image_size else image
        return mode

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        loaded = tqdm(pool.map(load, range(len(paths))), "reading images", len(paths), disable=None)
        modes = Counter(loaded)
    if all(mode in images.GREY_MODES for mode in modes):
        return pixels[..., :1].copy()
    if others := len(paths) - modes["RGB"]:
        counts = ", ".join(f"{n} {mode}" for mode, n in modes.most_common())
        LOG.warning(
            f"warning: {others} of {len(paths)} images were converted to RGB (modes: {counts})"
        )
    return pixels
