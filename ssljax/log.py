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
    if not LOG.handlers and not logging.getLogger().handlers:
        LOG.addHandler(_Lines())
        LOG.propagate = False  # absl, which JAX imports, adds a handler that prints them again
    if LOG.level == logging.NOTSET:
        LOG.setLevel(logging.INFO)
