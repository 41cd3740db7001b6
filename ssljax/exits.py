"""How commands end: errors that the user can fix become one line and an exit code."""

import signal
import sys
from collections.abc import Callable

from ssljax import interrupts, log
from ssljax.errors import Interrupted, RunError, UsageError
from ssljax.storage import files


def code_of(command: Callable[[], None]) -> int:
    """Runs a command, prints the error it raises, and returns the exit code.

    The code is 0 for success, 2 for invalid input, 1 for other failures, and 128 plus the signal's
    number for signals.
    """
    try:
        command()
    except UsageError as error:
        return _end(f"error: {error}", 2)
    except RunError as error:
        return _end(f"error: {error}", 1)
    except (OSError, MemoryError) as error:
        text = _reason(error)
        if text is None:
            raise
        return _end(f"error: {text}", 1)
    except Interrupted as stop:
        return _end(f"{stop}; run the same command again to continue", 128 + stop.signum)
    except KeyboardInterrupt as stop:
        signum = stop.signum if isinstance(stop, interrupts.Ended) else signal.SIGINT
        return _end(f"{signal.Signals(signum).name}: there was nothing to save", 128 + signum)
    return 0


def _end(message: str, code: int) -> int:
    print(log.printable(message), file=sys.stderr)
    return code


def _reason(error: Exception) -> str | None:
    """Returns one line about a system error, or None if it names no file and is thus a bug."""
    if not isinstance(error, OSError):
        return f"the memory is full ({str(error) or type(error).__name__})"
    return files.describe(error)
