"""Arrays in .npz files, as `numpy.savez` writes them.

The file may be anybody's: nothing is unpickled, and arrays that memory does not hold are refused
before they are read.
"""

import math
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from zipfile import ZipFile, ZipInfo

import numpy as np
from numpy.lib import format as npy

from ssljax.data import memory
from ssljax.errors import UsageError

Arrays = dict[str, np.ndarray]


def names(path: Path) -> list[str]:
    """The arrays that a file has.

    Raises:
      UsageError: it is missing, or no .npz.
    """
    with _opened(path) as (_, members):
        return [*members]


def read(path: Path, chosen: Iterable[str]) -> Arrays:
    """Reads some arrays of a file. Each has a CRC-32, which is checked.

    Raises:
      UsageError: one is missing, damaged, of Python objects, or larger than it says or memory is.
    """
    with _opened(path) as (archive, members):
        found = {name: members[name] for name in chosen}
        size = sum(_declared_size(archive, member) for member in found.values())
        memory.require(str(path), size, memory.host_bytes(), "memory")
        arrays = {}
        for name, member in found.items():
            with archive.open(member) as file:
                arrays[name] = npy.read_array(file, allow_pickle=False)
        return arrays


@contextmanager
def _opened(path: Path) -> Iterator[tuple[ZipFile, dict[str, ZipInfo]]]:
    """A file, and where in it the arrays are."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            yield archive, {member.filename.removesuffix(".npy"): member for member in members}
    except UsageError:
        raise
    except Exception as error:  # a file of anybody's makes zipfile, zlib and NumPy raise all kinds
        reason = f"there is no {error}" if isinstance(error, KeyError) else str(error)
        raise UsageError(
            f"{path} cannot be read as an .npz without pickles: "
            f"{' '.join(reason.split()) or type(error).__name__}"
        ) from error


def _declared_size(archive: ZipFile, member: ZipInfo) -> int:
    """The bytes that an array declares in its header; they have to be those that it has."""
    with archive.open(member) as file:
        version = npy.read_magic(file)
        header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, _, dtype = header(file)
        has = member.file_size - file.tell()
    if dtype.hasobject:
        raise ValueError(f"Object arrays are not read, such as {member.filename}")
    declared = math.prod(shape) * dtype.itemsize
    if declared != has:
        declares, there = memory.describe(declared), memory.describe(has)
        raise ValueError(f"{member.filename} declares {declares}, but has {there}")
    return declared
