"""Signals that end a run: noticed between steps and between batches of an evaluation."""

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

# Seconds from the signal to the end of a process that does not get to notice it: platforms kill
# 30 seconds after the signal. Before the first step (XLA may compile for minutes) nothing is lost.
_BEFORE_A_STEP, _WITHIN_A_STEP = 5.0, 25.0


class Stopped(Exception):
    """An evaluation was cut short by a signal."""


class Stop:
    """Which signal came, of any process of the run."""

    signum = 0  # of this process
    called = False  # the first call, which compiles, has ended
    stepped = False  # since the last save there have been steps
    noticed = False  # the loop is about to leave

    def __init__(self) -> None:
        self._agree = hosts.Agreement()

    def now(self) -> int:
        """The signal that came to any process, 0: none. All processes must ask at the same point of
        the run, and are told the same."""
        signum = self._agree(self.signum)
        self.noticed = bool(signum)
        return signum

    def watch(self, batches: Batches) -> Batches:
        """The same batches.

        Raises:
          Stopped: a signal came.
        """
        for batch in batches:
            if self.now():
                raise Stopped
            yield batch


@contextmanager
def stop_signal() -> Iterator[Stop]:
    """Notes the first SIGINT, SIGTERM or SIGHUP; a second one ends the process at once.

    In another thread than the main one there is nothing to note: signals are the main thread's.
    Python runs a signal's handler when the main thread is back from XLA; a thread that the system
    wakes does not have to wait for that.
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
    """Ends the process at the second signal, or when the main thread is busy for too long.

    A terminal that closes sends SIGHUP twice, itself and through the shell: that is no second one.
    """
    first = _next(reader, heeded)
    if not first:
        return
    more = [signum for signum in heeded if signum != signal.SIGHUP]
    second = _next(reader, more, _WITHIN_A_STEP if stop.stepped else _BEFORE_A_STEP)
    if second is None and not stop.noticed:
        lost = "a step took too long to save it" if stop.stepped else "there was nothing to save"
        try:
            print(f"{signal.Signals(first).name}: left within a step, {lost}", file=sys.stderr)
            sys.stderr.flush()
        finally:  # whether or not anybody reads it
            os._exit(128 + first)
    if second is None:
        second = _next(reader, more)
    if second:
        os._exit(128 + second)


def _next(reader: int, signums: Collection[int], seconds: float | None = None) -> int | None:
    """The next of these signals; 0: the pipe was closed; None: none came in that time."""
    end = None if seconds is None else time.monotonic() + seconds
    while True:
        left = None if end is None else max(0.0, end - time.monotonic())
        if not select.select([reader], [], [], left)[0]:
            return None
        number = os.read(reader, 1)
        if not number or number[0] in signums:
            return number[0] if number else 0
