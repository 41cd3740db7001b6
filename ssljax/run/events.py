"""Removes rows from TensorBoard event files of earlier starts if they will be computed again.

Needs no TensorFlow: a file is a sequence of records, each with an 8-byte length and a 4-byte
checksum before it and a checksum after it. A record is a protocol buffer `Event`, whose field 2 is
its step.
"""

from collections.abc import Iterator
from pathlib import Path

from ssljax.storage.files import write_bytes

_BEFORE, _BEHIND = 12, 4  # bytes around a record
_STEP = 2  # number of the field


def drop_after(workdir: Path, step: int) -> None:
    """Removes the records after `step` from a run's event files; at step 0, removes all."""
    for path in workdir.glob("events.out.tfevents.*"):
        content = path.read_bytes()
        kept = [record for record, at in _records(content) if 0 < step >= at]
        if len(kept) < 2:  # the first record is the format version
            path.unlink()
        elif sum(map(len, kept)) < len(content):
            write_bytes(path, b"".join(kept))


def _records(content: bytes) -> Iterator[tuple[bytes, int]]:
    """Yields the records of a file, with length and checksums, and their steps; an incomplete last
    record is omitted."""
    start = 0
    while start + _BEFORE <= len(content):
        size = int.from_bytes(content[start : start + 8], "little")
        end = start + _BEFORE + size + _BEHIND
        if end > len(content):
            return
        yield content[start:end], _step(content[start + _BEFORE : end - _BEHIND])
        start = end


def _step(event: bytes) -> int:
    """Returns the step of an `Event`; 0 if it has none."""
    place = 0
    while place < len(event):
        tag, place = _varint(event, place)
        field, kind = tag >> 3, tag & 7
        if kind == 0:
            value, place = _varint(event, place)
            if field == _STEP:
                return value
        elif kind == 2:
            size, place = _varint(event, place)
            place += size
        else:
            place += {1: 8, 5: 4}.get(kind, len(event))
    return 0


def _varint(data: bytes, place: int) -> tuple[int, int]:
    """Decodes a number with 7 bits per byte, lowest first; returns it and its end position."""
    value = shift = 0
    while place < len(data):
        value |= (data[place] & 127) << shift
        place, shift = place + 1, shift + 7
        if data[place - 1] < 128:
            break
    return value, place
