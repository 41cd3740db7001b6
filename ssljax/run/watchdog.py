"""Tells while a step takes far longer than steps do, so that a run that hangs says so."""

import statistics
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_FACTOR = 10  # times the median
_SHORTEST = 10.0  # seconds: shorter pauses are nobody's business
_FEWEST = 10  # measurements, before which a median means little
_REMEMBERED = 101  # measurements that the median is of


class Watchdog:
    """Measures calls, and reports one that takes ten times the median while it still runs.

    A call may return before its steps are done: a stream leaves two. So time is divided by the
    steps that were done in it, not by those that were begun.

    Args:
      report: is given the line to print.
      step: steps that are done before the first call.
      clock: seconds.
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
        self._pending = 0.0  # seconds of calls since a step was last done
        self._seconds: deque[float] = deque(maxlen=_REMEMBERED)  # a step, of each measurement

    def median(self) -> float | None:
        """Seconds a step takes; None before the second call, as the first one compiles."""
        return statistics.median(self._seconds) if self._seconds else None

    def limit(self, count: int) -> float | None:
        """Seconds after which a call that waits for `count` steps is reported; None: never."""
        if len(self._seconds) < _FEWEST:
            return None
        return max(_SHORTEST, _FACTOR * statistics.median(self._seconds) * count)

    @contextmanager
    def call(
        self, last: int, done: Callable[[int], int], *, measure: bool = True
    ) -> Iterator[None]:
        """Around a call that begins the steps up to `last`.

        Args:
          done: says, given `last`, which step was the last one that is done.
        """
        limit, timer = self.limit(last - self._done), None
        if limit is not None:
            text = (
                f"watchdog: step {self._done + 1} is not done after {limit:.1f} s; the median is "
                f"{self.median():.3f} s a step. Likely: the storage or the machine is busy, or "
                "another host hangs"
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
