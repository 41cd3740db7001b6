"""Signals that end a run: they are checked between steps and between evaluation batches."""

import os
import select
import signal
import sys
import threading
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from types import FrameType

from ssljax import interrupts
from ssljax.data.datasets import Batches
from ssljax.training import hosts

# Seconds after a signal until a process that cannot check for it is ended: platforms kill processes
# 30 seconds after the signal. Before the first step (XLA may compile for minutes) nothing is lost.
_BEFORE_A_STEP, _WITHIN_A_STEP = 5.0, 25.0


class Stopped(Exception):
    """An evaluation was cut short by a signal."""


class Stop:
    """The signal received by any process of the run."""

    signum = 0  # the signal received by this process
    called = False  # whether the first call, which compiles, has ended
    stepped = False  # whether steps have run since the last save
    noticed = False  # whether the loop is about to stop

    def __init__(self) -> None:
        self._agree = hosts.Agreement()

    def now(self) -> int:
        """Returns the signal received by any process, 0: none. All processes must call this at the
        same point of the run, and get the same result."""
        signum = self._agree(self.signum)
        self.noticed = bool(signum)
        return signum

    def watch(self, batches: Batches) -> Batches:
        """Passes the batches on.

        Raises:
          Stopped: a signal arrived.
        """
        for batch in batches:
            if self.now():
                raise Stopped
            yield batch


@contextmanager
def stop_signal() -> Iterator[Stop]:
    """Records the first SIGINT, SIGTERM or SIGHUP; a second one ends the process at once.

    Outside the main thread it has no effect: Python delivers signals to the main thread only.
    Python runs a signal handler only when the main thread returns from XLA; a thread woken by the
    system does not have to wait for that.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def handler(signum: int, frame: FrameType | None) -> None:
        del frame
        stop.signum = stop.signum or signum

    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    woken = signal.set_wakeup_fd(writer)
    thread = threading.Thread(target=_attend, args=(stop, reader, interrupts.heeded()), daemon=True)
    thread.start()
    try:
        with interrupts.handled(handler):
            yield stop
    finally:
        signal.set_wakeup_fd(woken)
        os.close(writer)  # ends the thread
        thread.join()
        os.close(reader)


def _attend(stop: Stop, reader: int, heeded: Collection[int]) -> None:
    """Ends the process at the second signal, or if the main thread is busy for too long.

    A closing terminal sends SIGHUP twice, itself and through the shell; the second is ignored.
    """
    first = _next(reader, heeded)
    if not first:
        return
    more = [signum for signum in heeded if signum != signal.SIGHUP]
    second = _next(reader, more, _WITHIN_A_STEP if stop.stepped else _BEFORE_A_STEP)
    if second is None and not stop.noticed:
        when = (
            "during a step, which took too long to save its result"
            if stop.stepped
            else "before the end of the first step, with nothing to save"
        )
        try:
            print(f"{signal.Signals(first).name}: stopped {when}", file=sys.stderr)
            sys.stderr.flush()
        finally:  # whether or not standard error is still open
            os._exit(128 + first)
    if second is None:
        second = _next(reader, more)
    if second:
        os._exit(128 + second)


def _next(reader: int, signums: Collection[int], seconds: float | None = None) -> int | None:
    """Returns the next of these signals; 0: the pipe was closed; None: none arrived in time."""
    end = None if seconds is None else time.monotonic() + seconds
    while True:
        left = None if end is None else max(0.0, end - time.monotonic())
        if not select.select([reader], [], [], left)[0]:
            return None
        number = os.read(reader, 1)
        if not number or number[0] in signums:
            return number[0] if number else 0
