"""The loop: run steps, log, evaluate, save, and leave when a signal asks for it."""

import math
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import jax
import numpy as np
from PIL import Image
from tqdm import tqdm

from ssljax import evaluate
from ssljax.errors import Interrupted, RunError
from ssljax.files import write_json
from ssljax.recipe import Recipe
from ssljax.training import checkpoint, metrics, parallel, record
from ssljax.training.state import TrainState
from ssljax.training.step import Metrics


def train(recipe: Recipe, workdir: Path) -> dict[str, Any]:
    """Trains `recipe` in `workdir`, resuming what is there; returns what `results.json` holds.

    Raises:
      UsageError: the directory holds another run, or a checkpoint that cannot be read.
      RunError: the loss is no longer finite.
      Interrupted: SIGINT or SIGTERM came; the state was saved first.
    """
    shapes = recipe.shapes()
    empty = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes["window"])
    checkpoint.open_directory(workdir, recipe.config, recipe.split, recipe.dataset)
    with (
        record.noting_failure(workdir),
        checkpoint.Checkpoints(workdir, keep=recipe.keep_checkpoints) as checkpoints,
    ):
        if (newest := checkpoints.newest()) is None:
            saved = {"state": recipe.init_state(), "window": empty}
        else:
            saved = checkpoints.restore(newest, shapes)
            print(f"resuming {workdir} after step {newest}")
        with metrics.MetricsLog(workdir, step=int(saved["state"].step)) as log:
            record.begin(recipe, workdir, log, step=int(saved["state"].step))
            _loop(recipe, saved, empty, checkpoints, log, workdir)
    results = evaluate.results(metrics.read_rows(workdir / "metrics.jsonl"))
    write_json(workdir / "results.json", results)
    return results


def _loop(
    recipe: Recipe,
    saved: dict[str, Any],
    empty: Metrics,
    checkpoints: checkpoint.Checkpoints,
    log: metrics.MetricsLog,
    workdir: Path,
) -> None:
    """Goes on from `saved` to the last step; `empty` is a window without steps."""
    step = int(saved["state"].step)
    state, window = (parallel.replicate(saved[x], recipe.devices) for x in ("state", "window"))
    run, evaluator = recipe.run(), recipe.evaluator()

    def save():
        _require_finite(step, state)
        checkpoints.save(step, parallel.fetch({"state": state, "window": window}))

    with (
        _stop_signal() as stop,
        recipe.feed(step) as feed,
        _Progress(recipe, step, feed) as progress,
    ):
        while step < recipe.num_steps:
            boundary = _next_boundary(recipe, step)
            count = min(recipe.steps_per_run, boundary - step)
            state, window = run(state, window, feed, count)
            step += count
            progress.advance(count)
            if step == boundary:
                row = {"step": step, **metrics.summarize(parallel.fetch(window))}
                row |= progress.rates()
                window = parallel.replicate(empty, recipe.devices)
                evaluated = step % recipe.eval_every == 0 or step == recipe.num_steps
                if evaluated:
                    _require_finite(step, state, row["loss/total"])
                    scores = evaluate.evaluate_state(recipe, evaluator, state)
                    row |= scores
                    progress.write(f"step {step}: {evaluate.describe(scores)}")
                    _draw_augmentation(recipe, state, workdir)
                    record.write_predictions(recipe, state, workdir, step=step)
                log.write(row)
                if evaluated:
                    save()
                progress.report(row)
            if stop.signum and step < recipe.num_steps:
                save()
                name = signal.Signals(stop.signum).name
                raise Interrupted(stop.signum, f"{name}: saved after step {step}")


def _next_boundary(recipe: Recipe, step: int) -> int:
    """The next step after which something is logged or evaluated."""
    log = step - step % recipe.log_every + recipe.log_every
    evaluation = step - step % recipe.eval_every + recipe.eval_every
    return min(log, evaluation, recipe.num_steps)


def _draw_augmentation(recipe: Recipe, state: TrainState, workdir: Path) -> None:
    """Writes `augment.png`, a picture of what the augmentation has learned, if it learns."""
    if recipe.augmentation.picture is not None:
        picture = recipe.augmentation.picture(parallel.fetch(state.augment))
        Image.fromarray(picture).save(workdir / "augment.png")


def _require_finite(step: int, state: TrainState, loss: float = 0.0) -> None:
    leaves = jax.tree.leaves(parallel.fetch((state.params, state.batch_stats)))
    if not (math.isfinite(loss) and all(np.isfinite(x).all() for x in leaves)):
        raise RunError(
            f"the loss or a weight is not finite at step {step}; the checkpoint before it is "
            "intact. A lower config.optimizer.lr may help; metrics.jsonl shows how it began"
        )


class _Progress:
    """A bar on a terminal, plain lines elsewhere."""

    def __init__(self, recipe: Recipe, step: int, feed: parallel.Feed):
        self._bar = tqdm(
            total=recipe.num_steps,
            initial=step,
            unit="step",
            dynamic_ncols=True,
            disable=not sys.stderr.isatty(),
        )
        self._feed = feed
        self._images_per_step = recipe.images_per_step
        self._steps_left = recipe.num_steps - step
        self._steps = 0  # since the clock started
        self._start: float | None = None
        self._waited = 0.0  # at the clock's start

    def __enter__(self) -> "_Progress":
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
        if isinstance(self._feed, parallel.Stream):
            self._waited = self._feed.waited

    def rates(self) -> metrics.Row:
        """Means since the last report: images a second and, of a stream, the share of time that was
        spent waiting for data. None before a second run of steps."""
        if not self._steps or self._start is None:
            seconds = None
        else:
            seconds = time.perf_counter() - self._start
        rate = seconds and self._steps * self._images_per_step / seconds
        if not isinstance(self._feed, parallel.Stream):
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
        tqdm.write(line)
        sys.stdout.flush()


class _Stop:
    signum: int = 0


@contextmanager
def _stop_signal() -> Iterator[_Stop]:
    """Notes the first SIGINT or SIGTERM; a second one ends the process at once."""
    stop = _Stop()

    def handler(signum: int, frame: FrameType | None) -> None:
        del frame
        if stop.signum:
            os._exit(128 + signum)
        stop.signum = signum

    previous = {s: signal.signal(s, handler) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for signum, action in previous.items():
            signal.signal(signum, action)
