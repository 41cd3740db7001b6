"""Images for prediction: from files, arrays, or the data of a run."""

import glob
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ssljax import paths
from ssljax.data import arrays, image_index, images, streaming
from ssljax.data.datasets import Dataset
from ssljax.data.image_index import ImageIndex
from ssljax.data.splits import Split
from ssljax.data.streaming import StreamedDataset
from ssljax.errors import UsageError
from ssljax.log import some

_TOGETHER = 16  # files that a thread reads per task


class Loaded(NamedTuple):
    """Some images of a source."""

    first: int  # position of the first image in the source
    names: list[str]
    images: np.ndarray  # [n, H, W, C] uint8, those that could be read
    positions: np.ndarray  # [n] positions of `images` in the source
    problems: dict[int, str]  # position -> why the image could not be read


class Source(NamedTuple):
    """An ordered collection of images, each with a name."""

    names: list[str]
    batches: Callable[[int], Iterator[Loaded]]  # takes the batch size
    labels: np.ndarray | None = None  # [N] int64, -1: unknown; None: no labels are known


# The images that a user can name: an array, a path, or a list of paths.
Place = str | os.PathLike[str]
Images = np.ndarray | Place | Iterable[Place]
_FILES = "a folder, a file, a pattern with *"
ALLOWED = f"{_FILES}, an .npz"


def of(images: Images, image_shape: tuple[int, int, int], *, stream: bool = False) -> Source:
    """Returns the source of an array (see `from_array`), a path (see `from_path`), or a list of
    paths of images, folders and patterns.

    Raises:
      UsageError: `images` is something else, or there are no images.
    """
    if isinstance(images, str | os.PathLike):
        return from_path(images, image_shape, stream=stream, field="images")
    if isinstance(images, Iterable) and not hasattr(images, "__array__"):
        images = list(images)
    try:
        array = np.asarray(images)
    except ValueError as error:  # raised for arrays of different shapes
        raise UsageError(f"images: {error}; allowed: images of one size, or files") from error
    paths = array.tolist() if array.dtype.kind in "OU" else []  # e.g. a column of a table
    if isinstance(paths, list) and all(isinstance(path, str | os.PathLike) for path in paths):
        found = [_files(path, "images", _FILES) for path in paths]
        files = [file for _, below in found for file in below]
        if files:
            return _from_files(files, [str(file) for file in files], image_shape, stream)
    return from_array(array, image_shape)


def from_path(
    where: Place,
    image_shape: tuple[int, int, int],
    *,
    stream: bool = False,
    field: str = "--images",
    allowed: str = ALLOWED,
) -> Source:
    """Returns the images of a folder at any depth, one file, a pattern with `*`, or an `.npz` file.

    Names are paths relative to the folder, or file names; for an array, numbers from 0. Each image
    is prepared for `image_shape`, (height, width, channels), as in training: rotated upright by its
    EXIF data, cropped to the largest central part of that shape, resized (bicubic); with `stream`,
    cropped as streams are.

    Args:
      field: the name of `where` in messages.
      allowed: the allowed values, for messages.

    Raises:
      UsageError: there are no images.
    """
    path = Path(paths.expand(os.fspath(where), field))
    if path.suffix.lower() == ".npz":
        return _from_npz(path, image_shape, field)
    root, files = _files(where, field, allowed)
    names = [file.relative_to(root).as_posix() for file in files]
    return _from_files(files, names, image_shape, stream)


def _files(where: Place, field: str, allowed: str) -> tuple[Path, list[Path]]:
    """Returns the folder and the image files of a path."""
    path = Path(paths.expand(os.fspath(where), field))
    if path.is_dir():
        root, files = path, sorted(_below(path))
    elif path.is_file():
        root, files = path.parent, [path]
    else:
        found = sorted(Path(x) for x in glob.glob(str(path), recursive=True))
        files = [file for file in found if file.is_file() and _is_image(file)]
        root = Path(os.path.commonpath([file.parent for file in files])) if files else path
    if not files:
        raise UsageError(f"{field}={where}: no image found; allowed: {allowed}")
    return root, files


def _from_files(
    files: Sequence[Path], names: list[str], image_shape: tuple[int, int, int], stream: bool
) -> Source:
    if stream:
        index = image_index.of_files([(file, -1) for file in files])
        return streamed(index, np.arange(len(files)), names, image_shape[0])

    def load(position: int) -> np.ndarray:
        return fit(images.read(files[position])[0], image_shape, str(files[position]))

    return _one_by_one(names, load, image_shape)


def _below(folder: Path) -> Iterator[Path]:
    for where, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            file = Path(where, name)
            if not name.startswith(".") and _is_image(file) and file.is_file():
                yield file


def _is_image(file: Path) -> bool:
    return file.suffix.lower() in images.extensions()


def _from_npz(path: Path, image_shape: tuple[int, int, int], field: str) -> Source:
    """Reads the array `images`, or the only array of an archive, in batches."""
    names = arrays.names(path)
    if "images" not in names and len(names) != 1:
        raise UsageError(
            f"{field}={path} holds {some(names) or 'nothing'}; allowed: one array, or one called "
            "images"
        )
    name = "images" if "images" in names else names[0]
    shape, dtype, _ = arrays.header(path, name)
    _require_images(shape, dtype, image_shape, f"{field}={path}", least=1)

    def batches(size: int) -> Iterator[Loaded]:
        parts = (rows.reshape(-1, *image_shape) for rows in arrays.rows(path, name, size))
        return _numbered(numbers, parts)

    numbers = [*map(str, range(shape[0]))]
    return Source(numbers, batches)


def from_array(array: np.ndarray, image_shape: tuple[int, int, int]) -> Source:
    """Returns the source of an array of images, uint8 `[N, H, W, C]`, or grey `[N, H, W]`.

    Raises:
      UsageError: the array has another type or shape.
    """
    _require_images(array.shape, array.dtype, image_shape, "images")
    array = array.reshape(-1, *image_shape)
    return in_memory([*map(str, range(len(array)))], array, np.arange(len(array)))


def _require_images(
    shape: tuple[int, ...],
    dtype: np.dtype,
    image_shape: tuple[int, int, int],
    field: str,
    least: int = 0,
) -> None:
    """Raises UsageError unless an array holds at least `least` images in the model's format."""
    grey = image_shape[-1] == 1 and len(shape) == 3
    each = (*shape[1:], 1) if grey else shape[1:]
    if dtype != np.uint8 or each != image_shape or shape[0] < least:
        allowed = ", ".join(map(str, image_shape))
        more = f", N from {least} up" if least else ""
        raise UsageError(f"{field}: {dtype} {list(shape)}; allowed: uint8 [N, {allowed}]{more}")


def fit(image: np.ndarray, image_shape: tuple[int, int, int], name: str) -> np.ndarray:
    """Fits uint8 `[H, W, 3]` to the shape that the model takes.

    Raises:
      UsageError: the model takes grey images and this one has colours; or the model takes images
        that are not square and this one has another size.
    """
    height, width, channels = image_shape
    if channels == 1:
        if (image != image[..., :1]).any():
            raise UsageError(f"image {name} has colours; the model takes grey images")
        image = image[..., :1]
    if height == width:
        return images.fit(image, height)
    if image.shape[:2] != (height, width):
        found = f"{image.shape[0]}×{image.shape[1]}"
        raise UsageError(f"image {name} has {found} pixels; the model takes {height}×{width}")
    return image


def in_memory(
    names: list[str], pixels: np.ndarray, chosen: np.ndarray, labels: np.ndarray | None = None
) -> Source:
    """Returns some images of an array, uint8 `[N, H, W, C]`, as a source."""

    def batches(size: int) -> Iterator[Loaded]:
        starts = range(0, len(chosen), size)
        return _numbered(names, (pixels[chosen[start : start + size]] for start in starts))

    return Source(names, batches, labels)


def _numbered(names: list[str], parts: Iterable[np.ndarray]) -> Iterator[Loaded]:
    """Yields consecutive batches of images that are all readable."""
    first = 0
    for part in parts:
        positions = np.arange(first, first + len(part))
        yield Loaded(first, names[first : first + len(part)], part, positions, {})
        first += len(part)


def _one_by_one(
    names: list[str], load: Callable[[int], np.ndarray], image_shape: tuple[int, int, int]
) -> Source:
    """Returns the source of images from `load(position)`, which returns uint8 `[H, W, C]` or raises
    UsageError.

    All CPU cores prefetch images.
    """

    def attempt(positions: range) -> list[np.ndarray | str]:
        found: list[np.ndarray | str] = []
        for position in positions:
            try:
                found.append(load(position))
            except UsageError as error:
                found.append(str(error))
        return found

    def collect(first: int, tasks: list[Future[list[np.ndarray | str]]]) -> Loaded:
        found = [image for task in tasks for image in task.result()]
        read = [i for i, image in enumerate(found) if not isinstance(image, str)]
        pixels = [found[i] for i in read] or np.zeros((0, *image_shape), np.uint8)
        problems = {first + i: image for i, image in enumerate(found) if isinstance(image, str)}
        named = names[first : first + len(found)]
        return Loaded(first, named, np.asarray(pixels), first + np.array(read, int), problems)

    def batches(size: int) -> Iterator[Loaded]:
        pool = ThreadPoolExecutor(os.cpu_count())
        ahead: deque[tuple[int, list[Future[list[np.ndarray | str]]]]] = deque()
        try:
            for start in range(0, len(names), size):
                batch = range(start, min(start + size, len(names)))
                parts = (batch[i : i + _TOGETHER] for i in range(0, len(batch), _TOGETHER))
                ahead.append((start, [pool.submit(attempt, part) for part in parts]))
                if len(ahead) > 1:
                    yield collect(*ahead.popleft())
            if ahead:
                yield collect(*ahead.popleft())
        finally:  # if the reader stops early, e.g. by Ctrl-C, it does not wait for further images
            pool.shutdown(cancel_futures=True)

    return Source(names, batches)


def streamed(
    index: ImageIndex,
    chosen: np.ndarray,
    names: list[str],
    image_size: int,
    labels: np.ndarray | None = None,
) -> Source:
    """Returns some images of an index, cropped as when evaluating runs with `config.stream`."""

    def batches(size: int) -> Iterator[Loaded]:
        first = 0
        for pixels, valid, which in streaming.decoded(index, chosen, size, image_size):
            positions = np.arange(first, first + len(which))
            bad = zip(positions[~valid].tolist(), which[~valid].tolist(), strict=True)
            problems = {i: f"image {_undecodable(index, k)}" for i, k in bad}
            named = names[first : first + len(which)]
            yield Loaded(first, named, pixels[valid], positions[valid], problems)
            first += len(which)

    return Source(names, batches, labels)


def _undecodable(index: ImageIndex, number: int) -> str:
    reason = index.damage(number)
    return f"{index.describe(number)} cannot be decoded{reason and ': ' + reason}"


def of_run(data: Dataset | StreamedDataset, split: Split, part: str) -> Source:
    """Returns a run's unlabelled images without labelled ones (`unlabeled`), or its test images.

    Labels are those known to the data set.

    Raises:
      UsageError: there are no such images.
    """
    test = part == "test"
    every = np.arange(len(data.test_labels))
    chosen = every if test else np.setdiff1d(split.unlabeled, split.labeled)
    if not len(chosen):
        raise UsageError(f"--images={part}: the run has no such images")
    return of_images(data, chosen, "test" if test else "train")


def of_images(data: Dataset | StreamedDataset, indices: np.ndarray, part: str = "train") -> Source:
    """Returns some images of `train` or `test`, in the order of `indices`."""
    test, every = part == "test", data.names(part)
    names = [every[i] for i in indices]
    labels = (data.test_labels if test else data.labels)[indices]
    if isinstance(data, StreamedDataset):
        index = data.test_index if test else data.train_index
        return streamed(index, indices, names, data.image_size, labels)
    return in_memory(names, data.test_images if test else data.images, indices, labels)
