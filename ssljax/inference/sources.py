"""Images to predict: files, arrays, or what a run has read, one by one."""

import glob
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from ssljax.data import images
from ssljax.errors import UsageError


class Source(NamedTuple):
    """Images in an order, with a name for each."""

    names: Sequence[str]
    load: Callable[[int], np.ndarray]  # position -> uint8 [H, W, C]; raises UsageError
    labels: np.ndarray | None = None  # [N] int64, -1: unknown; None: none is known


class Loaded(NamedTuple):
    """Some images of a source."""

    first: int  # position in the source of the first one
    names: list[str]
    images: np.ndarray  # [n, H, W, C] uint8, of those that could be read
    positions: np.ndarray  # [n] their positions in the source
    problems: dict[int, str]  # position -> why an image could not be read


def from_path(where: str, image_shape: tuple[int, int, int]) -> Source:
    """The images of a folder at any depth, of one file, of a pattern with `*`, or of an `.npz`.

    Names are paths below the folder, or else file names; of an array, numbers from 0. Each image is
    fitted to `image_shape`, (height, width, channels), as in training: turned upright as its EXIF
    data says, the largest central part of that shape, resized (bicubic).

    Raises:
      UsageError: there is no image.
    """
    path = Path(where).expanduser()
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

    def load(position: int) -> np.ndarray:
        return fit(images.read(files[position])[0], image_shape, str(files[position]))

    return Source([file.relative_to(root).as_posix() for file in files], load)


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
    try:
        with np.load(path, allow_pickle=False) as archive:
            names = archive.files
            if "images" not in names and len(names) != 1:
                raise UsageError(
                    f"--images={path} holds {', '.join(names) or 'nothing'}; allowed: one array, "
                    "or one called images"
                )
            array = archive["images" if "images" in names else names[0]]
    except (OSError, ValueError, EOFError) as error:
        raise UsageError(f"--images={path} cannot be read: {error}") from error
    return from_array(array, image_shape, where=f"--images={path}")


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
    return Source([str(i) for i in range(len(array))], lambda position: array[position])


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


def batches(source: Source, size: int) -> Iterator[Loaded]:
    """The images of a source, `size` at a time, decoded by all cores ahead of their use."""

    def load(position: int) -> np.ndarray | str:
        try:
            return source.load(position)
        except UsageError as error:
            return str(error)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        ahead = None
        for start in [*range(0, len(source.names), size), None]:
            ready = ahead
            if start is not None:
                positions = range(start, min(start + size, len(source.names)))
                ahead = positions, [pool.submit(load, position) for position in positions]
            if ready is not None:
                yield _collect(source, ready[0], [future.result() for future in ready[1]])


def _collect(source: Source, positions: Sequence[int], found: Sequence[np.ndarray | str]) -> Loaded:
    pairs = list(zip(positions, found, strict=True))
    pixels = [image for _, image in pairs if not isinstance(image, str)]
    return Loaded(
        positions[0],
        [source.names[position] for position in positions],
        np.stack(pixels) if pixels else np.zeros((0, 0, 0, 0), np.uint8),
        np.array([position for position, image in pairs if not isinstance(image, str)], int),
        {position: image for position, image in pairs if isinstance(image, str)},
    )
