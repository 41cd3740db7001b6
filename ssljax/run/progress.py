"""What a run shows while it trains."""

import math
import sys
import time

from tqdm import tqdm

from ssljax.experiment import Experiment
from ssljax.run import metrics
from ssljax.training import hosts
from ssljax.training.stream import Feed, Stream


class ProgressBar:
    """A bar on a terminal, plain lines elsewhere; of several processes the first one's."""

    def __init__(self, experiment: Experiment, step: int, feed: Feed):
        self._bar = tqdm(
            total=experiment.num_steps,
            initial=step,
            unit="step",
            dynamic_ncols=True,
            disable=not sys.stderr.isatty() or not hosts.is_first(),
        )
        self._feed = feed
        self._images_per_step = experiment.images_per_step
        self._steps_left = experiment.num_steps - step
        self._steps = 0  # since the clock started
        self._start: float | None = None
        self._waited = 0.0  # at the clock's start

    def __enter__(self) -> "ProgressBar":
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def advance(self, steps: int) -> None:
        """Counts finished steps. The clock starts after the first ones, which compile."""
        self._bar.update(steps)
        self._steps_left -= steps
        if self._start is None:
            self._start_clock()
        else:
            self._steps += steps

    def _start_clock(self) -> None:
        self._steps, self._start = 0, time.perf_counter()
        if isinstance(self._feed, Stream):
            self._waited = self._feed.waited

    def rates(self) -> metrics.Row:
        """Means since the last report: images a second and, of a stream, the share of time that was
        spent waiting for data. None before a second run of steps."""
        if not self._steps or self._start is None:
            seconds = None
        else:
            seconds = time.perf_counter() - self._start
        rate = seconds and self._steps * self._images_per_step / seconds
        if not isinstance(self._feed, Stream):
            return {"images_per_second": rate}
        waiting = seconds and (self._feed.waited - self._waited) / seconds
        return {"images_per_second": rate, "data_wait": waiting}

    def report(self, row: metrics.Row) -> None:
        """Shows a row of metrics and starts the clock anew."""
        rate = row["images_per_second"]
        speed = f"loss {row['loss/total']:.4f}, {rate or math.nan:.0f} images/s"
        if row.get("data_wait") is not None:
            speed += f", {row['data_wait']:.1%} of the time waiting for data"
        if self._bar.disable:
            left = self._steps_left * self._images_per_step / rate if rate else math.nan
            self.write(f"step {row['step']}: {speed}, {left:.0f} s left")
        else:
            self._bar.set_postfix_str(speed)
        self._start_clock()

    def write(self, line: str) -> None:
        """Prints a line above the bar."""
        if hosts.is_first():
            tqdm.write(line)
            sys.stdout.flush()
