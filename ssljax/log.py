"""The lines that people read: `logging.getLogger("ssljax")`.

A notebook is quiet with `logging.getLogger("ssljax").setLevel(logging.ERROR)`.
"""

import codecs
import contextlib
import io
import logging
import os
import re
import sys
import tempfile
from collections.abc import Iterator

from tqdm import tqdm

LOG = logging.getLogger("ssljax")


class _Lines(logging.Handler):
    """Prints messages as they are, above a progress bar if there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(record.getMessage(), file=sys.stdout)
        sys.stdout.flush()


# What stands for characters that a terminal or a log file cannot show.
_PLAIN = {
    "×": "x", "±": "+-", "−": "-", "–": "-", "—": "-", "…": "...", "→": "->", "·": "*", "Π": "Pi",
}  # fmt: skip


def _plain(error: UnicodeError) -> tuple[str, int]:
    """Handles an encoding error: what stands for the character, or its number."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    plain = [_PLAIN.get(c) or c.encode("ascii", "backslashreplace").decode() for c in text]
    return "".join(plain), error.end


def _show_all() -> None:
    """Lets standard output and errors take any character, also where they are no UTF-8."""
    codecs.register_error("ssljax", _plain)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a notebook's are not
            stream.reconfigure(errors="ssljax")


def end_output() -> None:
    """Lets go of what cannot be written any more: Python would complain of it at its end."""
    try:
        print(end="", flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def show_lines() -> None:
    """Prints notes and progress on standard output, unless the program has set up logging."""
    _show_all()
    # A handler that lets no note through is not the program's: libraries add such ones.
    root = logging.getLogger()
    is_set_up = root.level < logging.WARNING and not all(map(_is_foreign, root.handlers))
    if not LOG.handlers and not is_set_up:
        LOG.addHandler(_Lines())
        LOG.propagate = False  # absl, which JAX imports, would print them again
    if LOG.level == logging.NOTSET:
        LOG.setLevel(logging.INFO)


def _is_foreign(handler: logging.Handler) -> bool:
    """Whether a library or a test runner has added a handler, rather than the program."""
    return type(handler).__module__.partition(".")[0] in ("absl", "_pytest")


# Notes and warnings of TensorFlow and absl, written in C++ while they are imported, when no setting
# reaches them; and what every import says where there are NVIDIA's libraries.
_NOISE = re.compile(
    r"WARNING: All log messages before absl|[IW]\d{4} |\d{4}-\d\d-\d\d .*: [IW] "
    r"|.*Unable to register cu|To enable the following instructions"
)


@contextlib.contextmanager
def quiet_import() -> Iterator[None]:
    """Holds standard error back while TensorFlow is imported; what is no noise is printed after.

    If the import fails, all is. The file descriptor is replaced, as it is C++ that writes.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # errors only, once it is imported
    if "tensorflow" in sys.modules:
        yield
        return
    failed = True
    with tempfile.TemporaryFile() as held:
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
