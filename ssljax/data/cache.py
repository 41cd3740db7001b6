"""Caches decoded data sets, one file each, so that the next start takes seconds.

A cache is an uncompressed .npz file. The zip format stores a CRC-32 of every array, which is
verified on reading. Caches can be deleted at any time.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from ssljax.data import arrays as npz_file
from ssljax.data.arrays import Arrays
from ssljax.errors import UsageError
from ssljax.log import LOG
from ssljax.storage.files import replacing


def load_or_build(
    paths: Sequence[Path], source: Callable[[], str], build: Callable[[], Arrays]
) -> Arrays:
    """Returns the arrays of `source` from a cache, or from `build`, and then caches them.

    Args:
      paths: possible locations; the last one is written. Empty if nothing can be cached.
      source: returns an identifier of the data that the arrays are decoded from. It is called again
        after `build`, which may have downloaded the data. A cache with another identifier is
        rebuilt, as is a damaged one.
      build: returns arrays by name; none is named "source".
    """
    wanted = source()
    for path in paths:
        if (arrays := _read(path, wanted)) is not None:
            return arrays
    arrays = build()
    if paths:
        _write(paths[-1], {"source": np.array(source()), **arrays})
    return arrays


def _read(path: Path, source: str) -> Arrays | None:
    if not path.exists():
        return None
    try:
        if str(npz_file.read(path, ["source"])["source"]) != source:
            return None
        names = [name for name in npz_file.names(path) if name != "source"]
        return npz_file.read(path, names)
    except UsageError as error:
        LOG.info(f"note: the cache {path} is damaged ({error}) and will be rebuilt")
        return None


def _write(path: Path, arrays: Arrays) -> None:
    """Writes atomically: a reader sees no cache, the old one or the new one."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]
    except OSError as error:  # a full disk must not stop the run
        LOG.info(f"note: the cache {path} cannot be written ({error})")
