"""Reports a step that takes far longer than usual while it runs, so that hangs are visible."""

import statistics
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_FACTOR = 10  # multiple of the median
_SHORTEST = 10.0  # seconds; shorter pauses are not reported
_FEWEST = 10  # measurements needed for a meaningful median
_REMEMBERED = 101  # measurements used for the median


class Watchdog:
    """Measures calls, and reports one that takes ten times the median while it is still running.

    A call may return before its steps are complete: with a stream, two may remain. Therefore times
    are divided by the number of steps completed in a call, not by the number begun.

    Args:
      report: receives the line to print.
      step: steps completed before the first call.
      clock: returns the time in seconds.
    """

    def __init__(
        self,
        report: Callable[[str], None],
        step: int = 0,
        clock: Callable[[], float] = time.perf_counter,
    ):
        self._report = report
        self._clock = clock
        self._done = step
        self._pending = 0.0  # seconds of calls since a step was last completed
        self._seconds: deque[float] = deque(maxlen=_REMEMBERED)  # per step, of each measurement

    def median(self) -> float | None:
        """Returns seconds per step; None before the second call, as the first one compiles."""
        return statistics.median(self._seconds) if self._seconds else None

    def limit(self, count: int) -> float | None:
        """Returns the seconds after which a call for `count` steps is reported; None: never."""
        if len(self._seconds) < _FEWEST:
            return None
        return max(_SHORTEST, _FACTOR * statistics.median(self._seconds) * count)

    @contextmanager
    def call(
        self, last: int, done: Callable[[int], int], *, measure: bool = True
    ) -> Iterator[None]:
        """Wraps a call that begins the steps up to `last`.

        Args:
          done: returns the last completed step, given `last`.
        """
        limit, timer = self.limit(last - self._done), None
        if limit is not None:
            text = (
                f"watchdog: step {self._done + 1} is not done after {limit:.1f} s; the median is "
                f"{self.median():.3f} s per step. Likely cause: the storage or the machine is "
                "busy, or another host hangs"
            )
            timer = threading.Timer(limit, self._report, [text])
            timer.daemon = True
            timer.start()
        start = self._clock()
        try:
            yield
        finally:
            if timer:
                timer.cancel()
        if measure:
            self._pending += self._clock() - start
        newly, self._done = done(last) - self._done, done(last)
        if newly and measure:
            self._seconds.append(self._pending / newly)
        if newly:
            self._pending = 0.0
