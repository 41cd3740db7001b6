"""Errors that the user can fix; the command line prints them as one line."""


class UsageError(ValueError):
    """Invalid input: the message names the field, its value and what is allowed (exit code 2)."""


class RunError(RuntimeError):
    """A run that cannot continue although its input was valid (exit code 1)."""


class Interrupted(Exception):
    """A signal stopped the run after its state was saved (exit code 128 + signal number)."""

    def __init__(self, signum: int, message: str):
        super().__init__(message)
        self.signum = signum
