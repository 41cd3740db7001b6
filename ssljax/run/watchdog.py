"""Tells while a step takes far longer than steps do, so that a run that hangs says so."""

import statistics
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_FACTOR = 10  # times the median
_SHORTEST = 1.0  # seconds: shorter pauses are nobody's business
_REMEMBERED = 101  # calls that the median is of


class Watchdog:
    """Measures calls, and reports one that takes ten times the median while it still runs."""

    def __init__(self, report: Callable[[str], None]):
        self._report = report
        self._seconds: deque[float] = deque(maxlen=_REMEMBERED)  # a step, of each call

    def median(self) -> float | None:
        """Seconds a step takes; None before the second call, as the first one compiles."""
        return statistics.median(self._seconds) if self._seconds else None

    @contextmanager
    def call(self, first: int, count: int, *, measure: bool = True) -> Iterator[None]:
        """Around the call that does `count` steps, the `first` and those after it."""
        median, timer = self.median(), None
        if median is not None:
            limit = max(_SHORTEST, _FACTOR * median * count)
            text = (
                f"watchdog: step {first} is not done after {limit:.1f} s; the median is "
                f"{median:.3f} s a step. Likely: the storage or the machine is busy, or another "
                "host hangs"
            )
            timer = threading.Timer(limit, self._report, [text])
            timer.daemon = True
            timer.start()
        start = time.perf_counter()
        try:
            yield
        finally:
            if timer:
                timer.cancel()
        if measure:
            self._seconds.append((time.perf_counter() - start) / count)
