"""Arrays in .npz files, as written by `numpy.savez`.

The file is not trusted: nothing is unpickled, and arrays that do not fit in memory are rejected
before they are read.
"""

import math
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple
from zipfile import ZipFile, ZipInfo

import numpy as np
from numpy.lib import format as npy

from ssljax.data import memory
from ssljax.errors import UsageError

Arrays = dict[str, np.ndarray]


class Header(NamedTuple):
    """The type and shape of an array in a file."""

    shape: tuple[int, ...]
    dtype: np.dtype
    by_rows: bool  # whether the rows are contiguous in the file

    @property
    def size(self) -> int:
        """The size in bytes."""
        return math.prod(self.shape) * self.dtype.itemsize


def names(path: Path) -> list[str]:
    """Returns the names of the arrays in a file.

    Raises:
      UsageError: the file is missing or not an .npz file.
    """
    with _opened(path) as (_, members):
        return [*members]


def read(path: Path, chosen: Iterable[str]) -> Arrays:
    """Reads some arrays of a file and verifies the CRC-32 of each.

    Raises:
      UsageError: an array is missing, damaged, of Python objects, larger than it declares, or too
        large for the memory.
    """
    with _opened(path) as (archive, members):
        found = {name: members[name] for name in chosen}
        size = sum(_header(archive, member).size for member in found.values())
        memory.require(str(path), size, memory.host_bytes(), "memory")
        arrays = {}
        for name, member in found.items():
            with archive.open(member) as file:
                arrays[name] = npy.read_array(file, allow_pickle=False)
        return arrays


def header(path: Path, name: str) -> Header:
    """Reads the type and shape of an array in a file, but not its values.

    Raises:
      UsageError: as for `read`.
    """
    with _opened(path) as (archive, members):
        return _header(archive, members[name])


def rows(path: Path, name: str, size: int) -> Iterator[np.ndarray]:
    """Yields the rows of an array in a file, `size` at a time, in constant memory.

    Raises:
      UsageError: as for `read`; a wrong CRC-32 is detected at the end.
    """
    found = header(path, name)
    if not found.by_rows:
        whole = read(path, [name])[name]
        yield from (whole[start : start + size] for start in range(0, len(whole), size))
        return
    each = found.size // max(found.shape[0], 1)
    with _opened(path) as (archive, members), archive.open(members[name]) as file:
        _read_header(file)
        for start in range(0, found.shape[0], size):
            count = min(size, found.shape[0] - start)
            part = np.frombuffer(_exactly(file, count * each), found.dtype)
            yield part.reshape(count, *found.shape[1:])


def _exactly(file: IO[bytes], count: int) -> bytes:
    content = file.read(count)
    if len(content) != count:
        raise ValueError("it ends too early")
    return content


@contextmanager
def _opened(path: Path) -> Iterator[tuple[ZipFile, dict[str, ZipInfo]]]:
    """Yields an open file and the locations of its arrays."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            yield archive, {member.filename.removesuffix(".npy"): member for member in members}
    except UsageError:
        raise
    except Exception as error:  # zipfile, zlib and NumPy raise many types for untrusted files
        reason = f"there is no {error}" if isinstance(error, KeyError) else str(error)
        raise UsageError(
            f"{path} cannot be read as an .npz without pickles: "
            f"{' '.join(reason.split()) or type(error).__name__}"
        ) from error


def _header(archive: ZipFile, member: ZipInfo) -> Header:
    """Reads the declared type and shape of an array; the file must have as many bytes."""
    with archive.open(member) as file:
        found = _read_header(file)
        has = member.file_size - file.tell()
    if found.dtype.hasobject:
        raise ValueError(f"Object arrays are not read, such as {member.filename}")
    if found.size != has:
        declares, there = memory.describe(found.size), memory.describe(has)
        raise ValueError(f"{member.filename} declares {declares}, but has {there}")
    return found


def _read_header(file: IO[bytes]) -> Header:
    version = npy.read_magic(file)
    read_one = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, by_columns, dtype = read_one(file)
    return Header(shape, dtype, not by_columns)
