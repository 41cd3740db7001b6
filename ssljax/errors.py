"""Errors that the person at the command line can mend; `launch.py` prints them as one line."""


class UsageError(ValueError):
    """Bad input: names the field, its value and what is allowed (exit code 2)."""


class RunError(RuntimeError):
    """A run that cannot go on, though its input was in order (exit code 1)."""


class Interrupted(Exception):
    """A signal stopped the run after its state was saved (exit code 128 + signal number)."""

    def __init__(self, signum: int, message: str):
        super().__init__(message)
        self.signum = signum
