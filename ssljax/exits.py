"""How a command ends: with one line and an exit code for all that a person can mend."""

import signal
import sys
from collections.abc import Callable

from ssljax import interrupts, log
from ssljax.errors import Interrupted, RunError, UsageError
from ssljax.storage import files


def code_of(command: Callable[[], None]) -> int:
    """Runs a command and prints what it raises; 0, 2 for bad input, 1 for what failed, and for
    signals 128 and their number."""
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
    """One line about what the system refuses; None: it names no file, and is a fault of ours."""
    if not isinstance(error, OSError):
        return f"the memory is full ({str(error) or type(error).__name__})"
    return files.describe(error)
