"""The lines that people read: `logging.getLogger("ssljax")`.

A notebook is quiet with `logging.getLogger("ssljax").setLevel(logging.ERROR)`.
"""

import logging
import sys

from tqdm import tqdm

LOG = logging.getLogger("ssljax")


class _Lines(logging.Handler):
    """Prints messages as they are, above a progress bar if there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(record.getMessage(), file=sys.stdout)
        sys.stdout.flush()


def show_lines() -> None:
    """Prints notes and progress on standard output, unless the program has set up logging."""
    root = [handler for handler in logging.getLogger().handlers if not _is_foreign(handler)]
    if not LOG.handlers and not root:
        LOG.addHandler(_Lines())
        LOG.propagate = False  # absl, which JAX imports, would print them again
    if LOG.level == logging.NOTSET:
        LOG.setLevel(logging.INFO)


def _is_foreign(handler: logging.Handler) -> bool:
    """Whether a library or a test runner has added a handler, rather than the program."""
    return type(handler).__module__.partition(".")[0] in ("absl", "_pytest")
