"""The signals that end a program: Ctrl-C's, a platform's, and a terminal's when it closes."""

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
    """The signals that end this program: under `nohup` SIGHUP does not."""
    ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return (signal.SIGINT, signal.SIGTERM, *(() if ignored else (signal.SIGHUP,)))


@contextmanager
def handled(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Handles the signals meanwhile, in the main thread: Python lets no other one do that."""
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
    """A handler: leaves, tidying up on the way; a second signal ends the process at once.

    A terminal that closes sends SIGHUP twice, itself and through the shell: that is no second one.

    Raises:
      Ended: always.
    """
    del frame
    signal.signal(signum, signal.SIG_IGN if signum == signal.SIGHUP else signal.SIG_DFL)
    raise Ended(signum)
