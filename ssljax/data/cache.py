"""Decoded data sets as one file each, so that a second start takes seconds.

A cache is an uncompressed .npz. Its zip format carries a CRC-32 of every array, which reading
checks. Deleting one is always safe.
"""

import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ssljax.log import LOG

Arrays = dict[str, np.ndarray]


def load_or_build(path: Path, source: Callable[[], str], build: Callable[[], Arrays]) -> Arrays:
    """What `path` holds of `source`, or what `build` returns, which is then written there.

    Args:
      source: identifies what the arrays are decoded from; asked again after `build`, which may
        have downloaded it. A cache of another source is built anew, and so is a damaged one.
      build: arrays by name, none called "source".
    """
    arrays = _read(path, source())
    if arrays is None:
        arrays = build()
        _write(path, {"source": np.array(source()), **arrays})
    return arrays


def _read(path: Path, source: str) -> Arrays | None:
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            if str(file["source"]) != source:
                return None
            return {name: file[name] for name in file.files if name != "source"}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError, EOFError, zipfile.BadZipFile) as error:
        LOG.info(f"note: the cache {path} is damaged ({error}) and will be rebuilt")
        return None


def _write(path: Path, arrays: Arrays) -> None:
    """Writes all at once: a reader sees no cache, the old one or the new one."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]
        partial.replace(path)
    except OSError as error:  # a full disk must not stop the run
        partial.unlink(missing_ok=True)
        LOG.info(f"note: the cache {path} cannot be written ({error})")
