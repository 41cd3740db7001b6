"""The user's images in a folder.

    train/<class>/*       labelled images; classes are numbered in the order of their names
    unlabeled/**          images without labels, optional
    valid/<class>/*       validation images, optional
    test/<class>/*        test images, optional

Other spellings of the part names are accepted, too (`spellings.py`). Images are files of any size
in any format that Pillow reads. Records are sorted by path, the same on any machine, so that the
same names give the same labelled set. Whatever is skipped is named in a warning: other files and
folders, hidden ones, and those created by operating systems and cameras.
"""

import os
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from tqdm import tqdm

from ssljax.data import images, memory, spellings
from ssljax.data.arrays import Arrays
from ssljax.errors import UsageError
from ssljax.log import LOG, printable, some

Folders = dict[str, list[Path]]  # folders by class name, most often one per class
Files = list[tuple[Path, int]]  # image files and their class numbers, -1: none
# Folders created by operating systems; some hold small copies of the images beside them.
_SYSTEM = ("__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information", "lost+found")


def read(folder: Path, *, image_size: int) -> tuple[Arrays, int]:
    """Reads an entire folder.

    Args:
      image_size: side in pixels of the squares that images are cropped and resized to; 0: images
        keep their size, which must be the same for all.

    Returns:
      Arrays: images `[N, H, W, C]` uint8 of train, unlabeled and valid, labels `[N]` int64 (-1:
      none), test_images, test_labels, class_names, and files `[N + T]`, relative to the folder; and
      the number of validation images, the last ones. C is 1 if all files are grey, else 3.

    Raises:
      UsageError: a folder or file is missing, unreadable, empty or misplaced.
    """
    classes, records, tests, num_valid = listing(folder)
    pixels = _decode([path for path, _ in records + tests], image_size)
    arrays = {
        "images": pixels[: len(records)],
        "labels": np.array([c for _, c in records], np.int64),
        "test_images": pixels[len(records) :],
        "test_labels": np.array([c for _, c in tests], np.int64),
        "class_names": np.array(classes),
        "files": np.array([path.relative_to(folder).as_posix() for path, _ in records + tests]),
    }
    return arrays, num_valid


def listing(folder: Path) -> tuple[list[str], Files, Files, int]:
    """Lists a folder: its classes; the files of train, unlabeled and valid; the files of test; and
    the number of validation files, the last of train, unlabeled and valid.

    Raises:
      UsageError: a folder or file is missing, unreadable or misplaced.
    """
    left: list[Path] = []  # paths that are not read
    try:
        parts = _parts(folder, left)
        classes = _classes(folder, parts["train"], left)
        numbers = {name: number for number, name in enumerate(classes)}
        train = _labeled(classes, numbers, left)
        valid, test = (
            _labeled(_by_name(parts[part], left), numbers, left) if part in parts else []
            for part in ("valid", "test")
        )
        unlabeled = [*_files(parts["unlabeled"], left)] if "unlabeled" in parts else []
    except OSError as error:
        raise UsageError(f"{printable(error.filename)} cannot be read: {error.strerror}") from error
    if empty := set(numbers.values()) - {number for _, number in train}:
        without = [*classes.values()][min(empty)][0]
        there = [path.relative_to(without) for path in left if without in path.parents]
        raise UsageError(
            f"{printable(without)} has no images, which every class needs; it has: "
            f"{some(there) or 'no files'}"
        )
    _tell(folder, left)
    records = [*train, *((path, -1) for path in unlabeled), *valid]
    return [folders[0].name for folders in classes.values()], records, test, len(valid)


def _tell(folder: Path, left: list[Path]) -> None:
    """Warns about paths that are not read, parts of the data set first."""
    if left:
        left.sort(key=lambda path: (len(path.parts), _is_hidden(path), path))
        names = some([path.relative_to(folder) for path in left])
        LOG.warning(f"warning: {printable(folder)} has entries that are not read: {names}")


def _parts(folder: Path, left: list[Path]) -> dict[str, Path]:
    """Returns the folders that are read, by part: train, …"""
    if not folder.is_dir():
        raise UsageError(f"config.dataset folder:{printable(folder)}: there is no such folder")
    entries = {entry.name: entry for entry in sorted(folder.iterdir())}
    chosen = spellings.choose(name for name, entry in entries.items() if entry.is_dir())
    if "train" not in chosen:
        raise UsageError(
            f"config.dataset folder:{printable(folder)}: there is no folder "
            f"{printable(folder / 'train')}; there are: {some(entries) or 'none'}"
        )
    left += [entry for name, entry in entries.items() if name not in chosen.values()]
    return {part: entries[name] for part, name in chosen.items()}


def _classes(folder: Path, train: Path, left: list[Path]) -> Folders:
    classes = _by_name(train, left)
    if not classes:
        raise UsageError(
            f"{printable(train)} has no classes; allowed: one folder of images per class"
        )
    for name in classes:
        if part := spellings.part_of(name):
            LOG.warning(
                f"warning: {printable(train / name)} is read as a class; if it is not one, move it "
                f"to {printable(folder / part)}"
            )
    return classes


def _by_name(folder: Path, left: list[Path]) -> Folders:
    """Returns the folders in `folder` by name, sorted.

    Names are compared in one Unicode form: some systems write é as one character, others as e and a
    combining accent.

    Raises:
      UsageError: there is an image beside the folders.
    """
    found: Folders = {}
    for entry in sorted(folder.iterdir()):
        if _is_hidden(entry):
            left.append(entry)
        elif entry.is_dir():
            found.setdefault(unicodedata.normalize("NFC", entry.name), []).append(entry)
        elif entry.suffix.lower() in images.extensions():
            raise UsageError(
                f"{printable(entry)} is not in a class folder; allowed: "
                f"{printable(folder)}/<class>/"
            )
        else:
            left.append(entry)
    return found


def _labeled(folders: Folders, numbers: Mapping[str, int], left: list[Path]) -> Files:
    """Returns the image files of folders and their class numbers, class by class."""
    found: Files = []
    for name, same in folders.items():
        files = [file for folder in same for file in _files(folder, left)]
        if files and name not in numbers:
            raise UsageError(
                f"{printable(same[0])} is a class that train does not have; allowed: "
                f"{some(numbers, 20)}"
            )
        if name not in numbers:
            left += same
        found += [(file, numbers[name]) for file in files]
    return sorted(found, key=lambda file: file[1])


def _files(folder: Path, left: list[Path], above: tuple[Path, ...] = ()) -> Iterator[Path]:
    """Yields the image files in `folder` and below, sorted.

    Raises:
      UsageError: a link leads to no file or back to a folder above it.
    """
    real = folder.resolve()
    if real in above:
        raise UsageError(f"{printable(folder)} is a symlink loop: it leads back to {real}")
    for entry in sorted(folder.iterdir()):
        if _is_hidden(entry):
            left.append(entry)
        elif entry.is_dir():
            yield from _files(entry, left, (*above, real))
        elif entry.suffix.lower() not in images.extensions():
            left.append(entry)
        elif entry.is_file():
            yield entry
        elif entry.is_symlink():
            raise UsageError(f"{printable(entry)} is a link that leads to no file")
        else:  # a pipe or a device, which may never end
            left.append(entry)


def _is_hidden(path: Path) -> bool:
    return path.name.startswith(".") or path.name in _SYSTEM


def _decode(paths: Sequence[Path], image_size: int) -> np.ndarray:
    """Decodes all files to `[N, H, W, C]` uint8."""
    shape = (image_size,) * 2 if image_size else images.read(paths[0])[0].shape[:2]
    size = len(paths) * shape[0] * shape[1] * 3
    memory.require(f"{len(paths)} images", size, memory.host_bytes(), "memory")
    pixels = np.empty((len(paths), *shape, 3), np.uint8)

    def load(i: int) -> str:
        image, mode = images.read(paths[i])
        if not image_size and image.shape[:2] != shape:
            raise UsageError(
                f"config.image_size is 0, but {printable(paths[i])} has {image.shape[0]}×"
                f"{image.shape[1]} pixels and {printable(paths[0])} {shape[0]}×{shape[1]}; "
                "allowed: from 1 up, the side in pixels that all are resized to"
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
