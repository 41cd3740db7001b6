"""Signals that end a program: from Ctrl-C, the platform, or a terminal that closes."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn


class Ended(KeyboardInterrupt):
    """A signal ended a program that has nothing to save."""

    def __init__(self, signum: int):
        super().__init__()
        self.signum = signum


def heeded() -> tuple[signal.Signals, ...]:
    """Returns the signals that end this program; under `nohup`, SIGHUP is not among them."""
    ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return (signal.SIGINT, signal.SIGTERM, *(() if ignored else (signal.SIGHUP,)))


@contextmanager
def handled(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Installs a signal handler for the duration; Python allows that in the main thread only."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {signum: signal.signal(signum, handler) for signum in heeded()}
    try:
        yield
    finally:
        for signum, action in before.items():
            signal.signal(signum, signal.SIG_DFL if action is None else action)


def end(signum: int, frame: FrameType | None) -> NoReturn:
    """Raises `Ended`, so that the program cleans up; a second signal ends the process at once.

    A closing terminal sends SIGHUP twice, itself and through the shell; the second is ignored.

    Raises:
      Ended: always.
    """
    del frame
    signal.signal(signum, signal.SIG_IGN if signum == signal.SIGHUP else signal.SIG_DFL)
    raise Ended(signum)
