"""Files of run directories and exports: written atomically, and with checksums.

`SHA256SUMS` lies beside files that are read again, in the format of `sha256sum --check`. A line
that begins with `#` is for the previous version, which a kill can leave in place.
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
PARTIAL = ".ssljax.partial"  # suffix of incomplete files, whose names start with a dot
_DEEPEST = 30  # maximum nesting of objects and lists
_LINE = re.compile(r"(?:# )?([0-9a-f]{64})  (.+)")


def partial_path(path: Path) -> Path:
    """Returns the path beside a file or directory where its next version is written."""
    return path.with_name(f".{path.name}{PARTIAL}")


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Opens a file that replaces `path` at the end, once it is on the disk.

    A reader sees the old file or the new one. Concurrent writers wait for each other; a file left
    by a kill is reused by the next writer.
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
    """Opens an empty file that no other process writes until it is closed."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        with suppress(OSError):  # some network file systems have no locks
            flock.exclusive(descriptor)
        if is_at(descriptor, path):
            os.ftruncate(descriptor, 0)
            return os.fdopen(descriptor, "wb")
        os.close(descriptor)  # the previous holder has renamed it


def is_at(descriptor: int, path: Path) -> bool:
    """Whether an open file still has this name."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path, follow_symlinks=False))
    except FileNotFoundError:
        return False


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file atomically: a reader sees the old or the new one, also after a kill."""
    with replacing(path) as file:
        file.write(content)


def write_text(path: Path, text: str) -> None:
    """Writes text in UTF-8 atomically; undecodable bytes in file names are kept."""
    write_bytes(path, text.encode(errors="surrogateescape"))


def as_json(value: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the value as read back from JSON: tuples become lists, NumPy numbers Python ones.

    Raises:
      UsageError: a part of it cannot be written.
    """
    return json.loads(_json(value))


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Writes a JSON file atomically."""
    write_bytes(path, _json(value))


def write_sealed(path: Path, value: dict[str, Any]) -> None:
    """Writes a JSON file as `write_json` does; `read_json` detects later changes to it."""
    content = _json(value)
    versions = [digest(content)]
    with suppress(FileNotFoundError):
        versions.append(digest(path.read_bytes()))
    versions = list(dict.fromkeys(versions))
    if recorded_sums(path.parent).get(path.name) != versions:  # first: a kill leaves one version
        with replacing(path.parent / SUMS) as file:  # calibration may write while a run trains
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
      kinds: required entries: names and the types of their values.
      tell: receives a line if the file was changed after it was written, and the file is read
        nevertheless; None: raises instead.

    Raises:
      UsageError: the file is missing, damaged, or has other content.
    """
    try:
        content = path.read_bytes()
        value = parse_json(content)
        for name, kind in kinds.items():
            if not isinstance(value.get(name), kind):
                raise ValueError(f"{name} is {str(value.get(name))[:60]!r}, not a {kind.__name__}")
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read: {error}") from error
    sums = recorded_sums(path.parent).get(path.name)
    if sums and digest(content) not in sums:
        text = f"{path} has changed since it was written"
        if tell is None:
            raise UsageError(
                f"{text}; restore it, or remove its line from {SUMS} there if the change is "
                "intended"
            )
        tell(text)
    return value


def parse_json(content: str | bytes) -> dict[str, Any]:
    """Parses a JSON object.

    Raises:
      ValueError: the content is not JSON, not an object, or nested deeper than any file written
        here.
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
    """Returns the SHA-256 in hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def recorded_sums(directory: Path) -> dict[str, list[str]]:
    """Returns the checksums in a directory's `SHA256SUMS`, by file name, newest version first."""
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


FULL = (
    "its disk is full. The previous checkpoint is intact: free some space and run the same command "
    "again"
)


@contextmanager
def telling_of_storage(directory: Path, full: str = FULL) -> Iterator[None]:
    """Turns errors while a directory is written into one line: no space, no permission, a disk that
    fails or is gone.

    Args:
      full: the text after "cannot be written: " if the disk is full.

    Raises:
      RunError: the directory cannot be written.
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
    """Yields an error and its causes."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def is_full(error: BaseException) -> bool:
    """Whether an error, or one that caused it, says the disk is full."""
    return any(
        (isinstance(x, OSError) and x.errno in (errno.ENOSPC, errno.EDQUOT))
        # TensorStore and TensorFlow have their own errors, which quote the system's text.
        or "No space left on device" in str(x)
        or "ENOSPC" in str(x)
        for x in _chain(error)
    )


def _reason(error: BaseException, directory: Path) -> str | None:
    """Returns the system's error about a file in a directory or its disk; None: another error."""
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
    """Returns the file that an error is about."""
    named = isinstance(error.filename, str | bytes | os.PathLike) and error.errno is not None
    return Path(os.fsdecode(error.filename)) if named else None


def describe(error: OSError) -> str | None:
    """Describes a system error on one line, with the file if known; None: not a disk error."""
    if is_full(error):
        return f"{_path(error) or 'a file'} cannot be written: the disk is full"
    if (path := _path(error)) is not None:
        return f"{path}: {error.strerror}"
    return error.strerror if error.errno in _OF_DISKS else None


# Matches paths without characters of patterns and without bytes that are not UTF-8.
_PLAIN = re.compile(r"[^][*?\\\udc80-\udcff]*")


@contextmanager
def plain_path(directory: Path) -> Iterator[Path]:
    """Yields a path of the directory that Orbax and TensorFlow accept: itself, or a link to it.

    Both interpret some characters in paths as patterns, and then find nothing or another directory.
    """
    if _PLAIN.fullmatch(str(directory)):
        yield directory
        return
    with tempfile.TemporaryDirectory(prefix="ssljax-") as folder:
        link = Path(folder, "directory")
        link.symlink_to(directory.absolute(), target_is_directory=True)
        yield link
