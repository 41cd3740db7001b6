"""The progress display of a training run."""

import sys
import threading
import time
from collections.abc import Callable

from tqdm import tqdm

from ssljax.experiment import Experiment
from ssljax.log import LOG
from ssljax.run import metrics
from ssljax.training import hosts
from ssljax.training.stream import Feed, Stream

_SILENCE = 30.0  # seconds without output after which a line is printed
_COMPILING = "compiling"
_LOOK = 1.0  # interval of this check, in seconds
_TIMED = 10  # steps after which the remaining time is announced
_UNITS = ((86_400, "days"), (3600, "hours"), (60, "minutes"), (1, "seconds"))


class ProgressBar:
    """A bar on a terminal, plain lines elsewhere; shown by the first of several processes.

    The speed counts only completed steps: with a stream, the last two steps begun may still be
    running.
    """

    def __init__(
        self,
        experiment: Experiment,
        step: int,
        feed: Feed,
        clock: Callable[[], float] = time.perf_counter,
    ):
        self._bar = tqdm(
            total=experiment.num_steps,
            initial=step,
            unit="step",
            dynamic_ncols=True,
            disable=not sys.stderr.isatty() or not hosts.is_first(),
        )
        self._feed = feed
        self._clock = clock
        self._images_per_step = experiment.images_per_step
        self._num_steps = experiment.num_steps
        self._steps_left = experiment.num_steps - step  # not yet begun
        self._first = step
        self._done_before = step  # steps done when the clock started
        self._start: float | None = None
        self._waited = 0.0  # waiting time when the clock started
        self._doing = _COMPILING  # current activity other than training steps
        self._last_line = clock()
        self._told = False  # whether the remaining time was announced
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look_after_silence, daemon=True)

    def __enter__(self) -> "ProgressBar":
        if self._bar.disable and hosts.is_first():
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self._thread.is_alive():
            self._thread.join()
        self._bar.close()

    def advance(self, steps: int) -> None:
        """Counts the steps of a call. The clock starts after the first call, which compiles."""
        self._bar.update(steps)
        self._steps_left -= steps
        if self._start is None:
            self._start_clock()
        elif not self._told and self._done() - self._done_before >= _TIMED:
            self._told = True
            self.write(self._outlook())

    def _outlook(self) -> str:
        """Returns a line with the estimated time of the remaining steps."""
        seconds = self._clock() - (self._start or 0.0)
        left = self._num_steps - self._done()
        each = seconds / (self._done() - self._done_before)
        return (
            f"about {duration(left * each)} for the remaining {left} steps "
            f"({duration(each)} per step); see --config.num_steps"
        )

    def _done(self) -> int:
        """Returns the last completed step."""
        if isinstance(self._feed, Stream):
            return self._first + self._feed.done
        return self._num_steps - self._steps_left

    def rates(self) -> metrics.Row:
        """Means since the last report: images per second and, for a stream, the fraction of time
        spent waiting for data. None before the second call."""
        steps = self._done() - self._done_before
        measured = steps and self._start is not None
        seconds = self._clock() - (self._start or 0.0) if measured else None
        rate = seconds and steps * self._images_per_step / seconds
        if not isinstance(self._feed, Stream):
            return {"images_per_second": rate}
        waiting = seconds and (self._feed.waited - self._waited) / seconds
        return {"images_per_second": rate, "data_wait": waiting}

    def show(self, row: metrics.Row, scores: str = "", title: str = "") -> None:
        """Shows a row of metrics on one line, or in the bar, with a line for any scores."""
        speed = f"loss {row['loss/total']:.4f}{self._speed(row)}"
        begin = f"{title}step {row['step']}: "
        if self._bar.disable:
            self.write(begin + (f"{scores}; {speed}" if scores else speed))
            return
        if scores:
            self.write(begin + scores)
        self._bar.set_postfix_str(speed)

    def pause(self, doing: str) -> None:
        """Notes the activity that replaces training steps until `resume`."""
        self._doing = doing

    def resume(self) -> None:
        """Restarts the measurement, so that the pause, e.g. an evaluation, does not count."""
        if self._start is None:
            self._doing = _COMPILING
        else:
            self._start_clock()

    def _start_clock(self) -> None:
        self._doing = ""
        self._done_before, self._start = self._done(), self._clock()
        if isinstance(self._feed, Stream):
            self._waited = self._feed.waited

    def _speed(self, rates: metrics.Row) -> str:
        """Describes the speed: `, 2688 images/s, 1.2% of the time waiting for data, 3 s left`."""
        rate = rates["images_per_second"]
        if not rate:
            return ""
        text = f", {rate:.0f} images/s"
        if rates.get("data_wait") is not None:
            text += f", {rates['data_wait']:.1%} of the time waiting for data"
        if self._bar.disable:
            left = (self._num_steps - self._done()) * self._images_per_step / rate
            text += f", {left:.0f} s left"
        return text

    def write(self, line: str) -> None:
        """Prints a line above the bar."""
        self._last_line = self._clock()
        if hosts.is_first():
            LOG.info("%s", line)

    def _look_after_silence(self) -> None:
        while not self._over.wait(_LOOK):
            self.break_silence()

    def break_silence(self) -> None:
        """Prints the progress if nothing was printed for half a minute."""
        if self._clock() - self._last_line >= _SILENCE:
            doing = f", {self._doing}" if self._doing else self._speed(self.rates())
            self.write(f"step {self._done()} of {self._num_steps}{doing}")


def duration(seconds: float) -> str:
    """Formats a time in a suitable unit: `2.5 hours`, `460 days`, `0.012 seconds`."""
    size, unit = next((u for u in _UNITS if seconds >= u[0]), _UNITS[-1])
    return f"{seconds / size:.{2 if seconds < 10 * size else 3}g} {unit}"
