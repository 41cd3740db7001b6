"""The log lines for users: `logging.getLogger("ssljax")`.

To silence it in a notebook, use `logging.getLogger("ssljax").setLevel(logging.ERROR)`.
"""

import codecs
import contextlib
import errno
import io
import logging
import os
import re
import select
import sys
import tempfile
from collections.abc import Collection, Iterator
from itertools import islice
from typing import Any

from tqdm import tqdm

LOG = logging.getLogger("ssljax")


def printable(name: object) -> str:
    """Returns a name as one line that any terminal and file accepts.

    Line breaks, control characters and undecodable bytes become escapes, `\\n`, `\\x1b`, `\\xe9`.
    """
    return "".join(c if c.isprintable() else _escaped(c) for c in str(name))


def _escaped(character: str) -> str:
    byte = ord(character) - 0xDC00  # Python's encoding of an undecodable byte in a file name
    if 0x80 <= byte <= 0xFF:
        return f"\\x{byte:02x}"
    return character.encode("unicode_escape").decode()


def some(names: Collection[object], most: int = 5) -> str:
    """Returns the first of many names on one line: `a, b, c, … (of 12)`."""
    shown = ", ".join(printable(name) for name in islice(names, most))
    return shown if len(names) <= most else f"{shown}, … (of {len(names):,})"


class _Lines(logging.Handler):
    """Prints messages without a prefix, above the progress bar if there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        line = record.getMessage()
        with contextlib.suppress(OSError, ValueError):  # the output was closed
            tqdm.write(line, file=sys.stdout)
            sys.stdout.flush()


# Replacements for characters that a terminal or a log file cannot show.
_PLAIN = {
    "×": "x", "±": "+-", "−": "-", "–": "-", "—": "-", "…": "...", "→": "->", "·": "*", "Π": "Pi",
}  # fmt: skip


def _plain(error: UnicodeError) -> tuple[str, int]:
    """Handles an encoding error by returning the characters' replacements or escapes."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    plain = [_PLAIN.get(c) or c.encode("ascii", "backslashreplace").decode() for c in text]
    return "".join(plain), error.end


def _show_all() -> None:
    """Lets standard output and standard error accept any character, even if they are not UTF-8."""
    codecs.register_error("ssljax", _plain)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # not the case in a notebook
            stream.reconfigure(errors="ssljax")


def show_lines() -> None:
    """Prints notes and progress on standard output, unless the program has set up logging."""
    _have_streams()
    _show_all()
    # Logging that hides notes, or that a library set up, does not count as the program's.
    root = logging.getLogger()
    is_set_up = root.level < logging.WARNING and not all(map(_is_foreign, root.handlers))
    if not LOG.handlers and not is_set_up:
        LOG.addHandler(_Lines())
        LOG.propagate = False  # absl, which JAX imports, would print them again
    if LOG.level == logging.NOTSET:
        LOG.setLevel(logging.INFO)


def _is_foreign(handler: logging.Handler) -> bool:
    """Whether a library or a test runner added the handler, rather than the program."""
    return type(handler).__module__.partition(".")[0] in ("absl", "_pytest")


def _have_streams() -> None:
    """Opens the null device in place of standard streams that are closed, as in a daemon.

    Otherwise the next opened file, perhaps a checkpoint, would receive the output of C++ code.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            nowhere = os.open(os.devnull, os.O_RDWR)
            if nowhere != descriptor:
                os.dup2(nowhere, descriptor)
                os.close(nowhere)
            os.set_inheritable(descriptor, True)
    for name, descriptor in _OUTPUTS:
        stream = getattr(sys, name)
        if stream is None or getattr(stream, "closed", False):
            raw = io.FileIO(descriptor, "w", closefd=False)
            setattr(sys, name, io.TextIOWrapper(io.BufferedWriter(raw), "utf-8", "replace"))


_OUTPUTS = (("stdout", 1), ("stderr", 2))


class _Lasting(io.FileIO):
    """A standard stream that discards what it cannot write, so the program outlives its reader."""

    def write(self, data: Any) -> int:
        try:
            while (count := super().write(data)) is None:  # the pipe's reader is slow
                select.select([], [self], [])
            return count
        except OSError as error:
            if error.errno in (errno.EPIPE, errno.EIO):  # permanent, also for C++
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, self.fileno())
                os.close(nowhere)
            return len(data)


def outlive_readers() -> None:
    """Makes standard streams survive a closed pipe (`| head`), a lost terminal and a full disk."""
    _have_streams()
    for name, descriptor in _OUTPUTS:
        stream = getattr(sys, name)
        raw = getattr(stream, "buffer", None)
        if not isinstance(raw, io.BufferedWriter | io.FileIO):  # replaced by other code
            continue
        lasting = io.TextIOWrapper(
            io.BufferedWriter(_Lasting(descriptor, "w", closefd=False)),
            encoding=stream.encoding,
            errors=stream.errors,
            line_buffering=stream.line_buffering,
            write_through=stream.write_through,
        )
        setattr(sys, name, lasting)


# Notes and warnings of TensorFlow and absl, written by C++ code during import, when no setting can
# suppress them; and messages that every import prints on machines with NVIDIA's libraries.
_NOISE = re.compile(
    r"WARNING: All log messages before absl|[IW]\d{4} |\d{4}-\d\d-\d\d .*: [IW] "
    r"|.*Unable to register cu|To enable the following instructions"
)


@contextlib.contextmanager
def quiet_import() -> Iterator[None]:
    """Holds standard error back while TensorFlow is imported, then prints all but known noise.

    If the import fails, everything is printed. The file descriptor itself is replaced, because C++
    code writes to it.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # errors only, after the import
    if "tensorflow" in sys.modules:
        yield
        return
    failed = True
    try:
        held = tempfile.TemporaryFile()  # noqa: SIM115
    except OSError:  # no writable temporary directory
        yield
        return
    with held:
        sys.stderr.flush()
        before = os.dup(2)
        os.dup2(held.fileno(), 2)
        try:
            yield
            failed = False
        finally:
            os.dup2(before, 2)
            os.close(before)
            held.seek(0)
            for line in held.read().decode(errors="replace").splitlines():
                if failed or not _NOISE.match(line):
                    print(line, file=sys.stderr, flush=True)
