"""Files of run directories and exports: written at once, and with checksums.

`SHA256SUMS` lies beside files that are read again, and has the lines that `sha256sum --check`
reads. A line that begins with `#` is of the version before: a kill can leave that one.
"""

import errno
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from ssljax.errors import RunError, UsageError
from ssljax.storage import flock

if TYPE_CHECKING:
    from PIL import Image

SUMS = "SHA256SUMS"
PARTIAL = ".ssljax.partial"  # ends the names of what is not whole yet, which begin with a dot
_DEEPEST = 30  # objects and lists inside each other
_LINE = re.compile(r"(?:# )?([0-9a-f]{64})  (.+)")


def partial_path(path: Path) -> Path:
    """Where the next version of a file or directory is made: beside it."""
    return path.with_name(f".{path.name}{PARTIAL}")


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file that takes the place of `path` at the end, when it is on the disk.

    A reader sees the old file or the new one. Of several writers one waits for the other; what a
    kill leaves, the next writer uses again.
    """
    partial = partial_path(path)
    with _opened_alone(partial) as file:
        try:
            yield file
            file.flush()
            os.fsync(file.fileno())
            partial.replace(path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise


def _opened_alone(path: Path) -> BinaryIO:
    """An empty file that no other process writes until it is closed."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        with suppress(OSError):  # some network file systems have no locks
            flock.exclusive(descriptor)
        if is_at(descriptor, path):
            os.ftruncate(descriptor, 0)
            return os.fdopen(descriptor, "wb")
        os.close(descriptor)  # the one who held it has renamed it


def is_at(descriptor: int, path: Path) -> bool:
    """Whether what is open still has this name."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path, follow_symlinks=False))
    except FileNotFoundError:
        return False


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file all at once: a reader sees the old one or the new one, also after a kill."""
    with replacing(path) as file:
        file.write(content)


def write_text(path: Path, text: str) -> None:
    """As `write_bytes`, in UTF-8; names of files that are none have their bytes."""
    write_bytes(path, text.encode(errors="surrogateescape"))


def as_json(value: Mapping[str, Any]) -> dict[str, Any]:
    """The value as it is read again: tuples are lists, NumPy's numbers Python's.

    Raises:
      UsageError: something in it cannot be written.
    """
    return json.loads(_json(value))


def write_json(path: Path, value: dict[str, Any]) -> None:
    """As `write_bytes`, a JSON file."""
    write_bytes(path, _json(value))


def write_sealed(path: Path, value: dict[str, Any]) -> None:
    """As `write_json`, and `read_json` will notice when it is changed afterwards."""
    content = _json(value)
    versions = [digest(content)]
    with suppress(FileNotFoundError):
        versions.append(digest(path.read_bytes()))
    versions = list(dict.fromkeys(versions))
    if recorded_sums(path.parent).get(path.name) != versions:  # first: a kill leaves one of them
        with replacing(path.parent / SUMS) as file:  # a calibration may come while a run trains
            file.write(_sums(recorded_sums(path.parent) | {path.name: versions}))
    write_bytes(path, content)


def write_picture(path: Path, picture: "Image.Image") -> None:
    """As `write_bytes`, a PNG file, which keeps the texts in `picture.info`."""
    from PIL.PngImagePlugin import PngInfo

    texts = PngInfo()
    for name, text in picture.info.items():
        if isinstance(text, str):
            texts.add_itxt(str(name), text)
    with replacing(path) as file:
        picture.save(file, "PNG", pnginfo=texts)


def _json(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(value, indent=2, default=_plain) + "\n").encode()


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    raise UsageError(f"{value!r} cannot be recorded; allowed: numbers, text, lists of these")


def read_json(
    path: Path, tell: Callable[[str], None] | None = None, **kinds: type
) -> dict[str, Any]:
    """Reads a JSON file that holds an object.

    Args:
      kinds: what must be in it: names and the types of their values.
      tell: is given the line that says so where the file was changed after it was written, and is
        read all the same; None: that raises.

    Raises:
      UsageError: it is missing, damaged, or holds something else.
    """
    try:
        content = path.read_bytes()
        value = parse_json(content)
        for name, kind in kinds.items():
            if not isinstance(value.get(name), kind):
                raise ValueError(f"{name} is {str(value.get(name))[:60]!r}, no {kind.__name__}")
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read: {error}") from error
    sums = recorded_sums(path.parent).get(path.name)
    if sums and digest(content) not in sums:
        text = f"{path} has changed since it was written"
        if tell is None:
            raise UsageError(
                f"{text}; put it back, or remove its line from {SUMS} there if it is to be so"
            )
        tell(text)
    return value


def parse_json(content: str | bytes) -> dict[str, Any]:
    """The object that some JSON holds.

    Raises:
      ValueError: it is no JSON, no object, or deeper than anything that is written here.
    """
    try:
        found = json.loads(content)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if not isinstance(found, dict):
        raise ValueError("it holds no JSON object")
    level: list[Any] = [found]
    for _ in range(_DEEPEST):
        inner = (part.values() if isinstance(part, dict) else part for part in level)
        level = [x for parts in inner for x in parts if isinstance(x, dict | list)]
        if not level:
            return found
    raise ValueError("it is nested too deeply")


def digest(content: bytes) -> str:
    """A SHA-256, in hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def recorded_sums(directory: Path) -> dict[str, list[str]]:
    """The sums in a directory's `SHA256SUMS`, by the files' names: newest version first."""
    sums: dict[str, list[str]] = {}
    with suppress(OSError):
        for line in (directory / SUMS).read_text("utf-8", "replace").split("\n"):
            if match := _LINE.fullmatch(line):
                sums.setdefault(match[2], []).append(match[1])
    return sums


def write_sums(directory: Path, sums: dict[str, list[str]]) -> None:
    """Writes a directory's `SHA256SUMS`."""
    write_bytes(directory / SUMS, _sums(sums))


def _sums(sums: dict[str, list[str]]) -> bytes:
    lines = [
        f"{'# ' if before else ''}{value}  {name}\n"
        for name, versions in sorted(sums.items())
        for before, value in enumerate(versions)
    ]
    return "".join(lines).encode(errors="surrogateescape")


FULL = "its disk is full. The checkpoint before is intact: make room and run the same command again"


@contextmanager
def telling_of_storage(directory: Path, full: str = FULL) -> Iterator[None]:
    """Turns what is raised while a directory is written into one line: no room, no permission, a
    disk that fails or is gone.

    Args:
      full: what follows "cannot be written: " where there is no room.

    Raises:
      RunError: it cannot be written.
    """
    try:
        yield
    except (RunError, UsageError):
        raise
    except Exception as error:
        reason = full if is_full(error) else _reason(error, directory)
        if reason is None:
            raise
        raise RunError(f"{directory} cannot be written: {reason}") from error


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error, and what caused it."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def is_full(error: BaseException) -> bool:
    """Whether an error means that there is no room left, or it was caused by one that does."""
    return any(
        (isinstance(x, OSError) and x.errno in (errno.ENOSPC, errno.EDQUOT))
        # TensorStore and TensorFlow have their own errors, with the system's words.
        or "No space left on device" in str(x)
        or "ENOSPC" in str(x)
        for x in _chain(error)
    )


def _reason(error: BaseException, directory: Path) -> str | None:
    """What the system says of a file in a directory, or of the disk; None: it is about another."""
    here = directory.absolute()
    for x in _chain(error):
        if isinstance(x, OSError) and (path := _path(x)) is not None:
            places = here, partial_path(here)
            return describe(x) if any(map(path.absolute().is_relative_to, places)) else None
        for number in _OF_DISKS:
            if getattr(x, "errno", None) == number or os.strerror(number) in str(x):
                return os.strerror(number)
    return None


_OF_DISKS = (errno.EFBIG, errno.EIO, errno.EROFS, errno.ESTALE)


def _path(error: OSError) -> Path | None:
    """The file that an error is about."""
    named = isinstance(error.filename, str | bytes | os.PathLike) and error.errno is not None
    return Path(os.fsdecode(error.filename)) if named else None


def describe(error: OSError) -> str | None:
    """One line for what the system refuses, with the file if it is known; None: it is no disk's."""
    if is_full(error):
        return f"{_path(error) or 'a file'} cannot be written: the disk is full"
    if (path := _path(error)) is not None:
        return f"{path}: {error.strerror}"
    return error.strerror if error.errno in _OF_DISKS else None


# Characters of patterns, and bytes that are no UTF-8.
_PLAIN = re.compile(r"[^][*?\\\udc80-\udcff]*")


@contextmanager
def plain_path(directory: Path) -> Iterator[Path]:
    """The directory under a name that Orbax and TensorFlow take: itself, or a link to it.

    Both take parts of a path for a pattern, and find nothing, or what belongs to its neighbour.
    """
    if _PLAIN.fullmatch(str(directory)):
        yield directory
        return
    with tempfile.TemporaryDirectory(prefix="ssljax-") as folder:
        link = Path(folder, "directory")
        link.symlink_to(directory.absolute(), target_is_directory=True)
        yield link
