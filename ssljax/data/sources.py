"""Images to predict: files, arrays, or what a run has read, one by one."""

import glob
import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from ssljax import paths
from ssljax.data import arrays, image_index, images, streaming
from ssljax.data.datasets import Dataset
from ssljax.data.image_index import ImageIndex
from ssljax.data.splits import Split
from ssljax.data.streaming import StreamedDataset
from ssljax.errors import UsageError
from ssljax.log import some


class Loaded(NamedTuple):
    """Some images of a source."""

    first: int  # position in the source of the first one
    names: list[str]
    images: np.ndarray  # [n, H, W, C] uint8, of those that could be read
    positions: np.ndarray  # [n] their positions in the source
    problems: dict[int, str]  # position -> why an image could not be read


class Source(NamedTuple):
    """Images in an order, with a name for each."""

    names: list[str]
    batches: Callable[[int], Iterator[Loaded]]  # so many at a time
    labels: np.ndarray | None = None  # [N] int64, -1: unknown; None: none is known


def from_path(where: str, image_shape: tuple[int, int, int], *, stream: bool = False) -> Source:
    """The images of a folder at any depth, of one file, of a pattern with `*`, or of an `.npz`.

    Names are paths below the folder, or else file names; of an array, numbers from 0. Each image is
    fitted to `image_shape`, (height, width, channels), as in training: turned upright as its EXIF
    data says, the largest central part of that shape, resized (bicubic); with `stream` cropped as
    streams are.

    Raises:
      UsageError: there is no image.
    """
    path = Path(paths.expand(where, "--images"))
    if path.suffix.lower() == ".npz":
        return _from_npz(path, image_shape)
    if path.is_dir():
        root, files = path, sorted(_below(path))
    elif path.is_file():
        root, files = path.parent, [path]
    else:
        found = sorted(Path(x) for x in glob.glob(str(path), recursive=True))
        files = [file for file in found if file.is_file() and _is_image(file)]
        root = Path(os.path.commonpath([file.parent for file in files])) if files else path
    if not files:
        raise UsageError(
            f"--images={where}: no image found; allowed: a folder, a file, a pattern with *, an "
            ".npz, unlabeled or test"
        )

    names = [file.relative_to(root).as_posix() for file in files]
    if stream:
        index = image_index.of_files([(file, -1) for file in files])
        return streamed(index, np.arange(len(files)), names, image_shape[0])

    def load(position: int) -> np.ndarray:
        return fit(images.read(files[position])[0], image_shape, str(files[position]))

    return one_by_one(names, load)


def _below(folder: Path) -> Iterator[Path]:
    for where, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            file = Path(where, name)
            if not name.startswith(".") and _is_image(file) and file.is_file():
                yield file


def _is_image(file: Path) -> bool:
    return file.suffix.lower() in Image.registered_extensions()


def _from_npz(path: Path, image_shape: tuple[int, int, int]) -> Source:
    """The array `images`, or the only one of an archive."""
    names = arrays.names(path)
    if "images" not in names and len(names) != 1:
        raise UsageError(
            f"--images={path} holds {some(names) or 'nothing'}; allowed: one array, or one called "
            "images"
        )
    name = "images" if "images" in names else names[0]
    return from_array(arrays.read(path, [name])[name], image_shape, where=f"--images={path}")


def from_array(
    array: np.ndarray, image_shape: tuple[int, int, int], *, where: str = "images"
) -> Source:
    """An array of images, uint8 `[N, H, W, C]`, or `[N, H, W]` in grey.

    Raises:
      UsageError: it is empty, or of another type or shape.
    """
    array = np.asarray(array)
    if array.ndim == 3:
        array = array[..., None]
    if array.dtype != np.uint8 or array.shape[1:] != image_shape or not len(array):
        allowed = ", ".join(map(str, image_shape))
        raise UsageError(
            f"{where}: {array.dtype} {list(array.shape)}; allowed: uint8 [N, {allowed}], N > 0"
        )
    return one_by_one([str(i) for i in range(len(array))], lambda position: array[position])


def fit(image: np.ndarray, image_shape: tuple[int, int, int], name: str) -> np.ndarray:
    """uint8 `[H, W, 3]` as the model takes it.

    Raises:
      UsageError: the model takes grey images, and this one has colours; or images that are not
        square, and this one has another size.
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


def one_by_one(
    names: list[str], load: Callable[[int], np.ndarray], labels: np.ndarray | None = None
) -> Source:
    """Images that `load(position)` returns, uint8 `[H, W, C]`, or raises UsageError about.

    All cores load ahead of their use.
    """

    def attempt(position: int) -> np.ndarray | str:
        try:
            return load(position)
        except UsageError as error:
            return str(error)

    def batches(size: int) -> Iterator[Loaded]:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            ahead: deque[tuple[int, list[Future[np.ndarray | str]]]] = deque()
            for start in range(0, len(names), size):
                end = min(start + size, len(names))
                ahead.append((start, [pool.submit(attempt, i) for i in range(start, end)]))
                if len(ahead) > 1:
                    yield _collect(names, *ahead.popleft())
            if ahead:
                yield _collect(names, *ahead.popleft())

    return Source(names, batches, labels)


def _collect(names: list[str], first: int, tasks: list[Future[np.ndarray | str]]) -> Loaded:
    found = [task.result() for task in tasks]
    pixels = [image for image in found if not isinstance(image, str)]
    return Loaded(
        first,
        names[first : first + len(found)],
        np.stack(pixels) if pixels else np.zeros((0, 0, 0, 0), np.uint8),
        np.array([first + i for i, image in enumerate(found) if not isinstance(image, str)], int),
        {first + i: image for i, image in enumerate(found) if isinstance(image, str)},
    )


def streamed(
    index: ImageIndex,
    chosen: np.ndarray,
    names: list[str],
    image_size: int,
    labels: np.ndarray | None = None,
) -> Source:
    """Some images of an index, cropped as a run with `config.stream` evaluates them."""

    def batches(size: int) -> Iterator[Loaded]:
        first = 0
        for pixels, valid, which in streaming.decoded(index, chosen, size, image_size):
            positions = np.arange(first, first + len(which))
            bad = zip(positions[~valid].tolist(), which[~valid].tolist(), strict=True)
            problems = {i: f"{index.describe(k)} cannot be decoded" for i, k in bad}
            named = names[first : first + len(which)]
            yield Loaded(first, named, pixels[valid], positions[valid], problems)
            first += len(which)

    return Source(names, batches, labels)


def of_run(data: Dataset | StreamedDataset, split: Split, part: str) -> Source:
    """The unlabelled images of a run that are no labelled ones (`unlabeled`), or its test images.

    Labels are those that the data set knows.

    Raises:
      UsageError: there are none.
    """
    test = part == "test"
    every = np.arange(len(data.test_labels))
    chosen = every if test else np.setdiff1d(split.unlabeled, split.labeled)
    if not len(chosen):
        raise UsageError(f"--images={part}: the run has no such images")
    return of_images(data, chosen, "test" if test else "train")


def of_images(data: Dataset | StreamedDataset, indices: np.ndarray, part: str = "train") -> Source:
    """Some images of `train` or `test`, in the order of `indices`."""
    test, every = part == "test", data.names(part)
    names = [every[i] for i in indices]
    labels = (data.test_labels if test else data.labels)[indices]
    if isinstance(data, StreamedDataset):
        index = data.test_index if test else data.train_index
        return streamed(index, indices, names, data.image_size, labels)
    pixels = data.test_images if test else data.images
    return one_by_one(names, lambda position: pixels[indices[position]], labels)
