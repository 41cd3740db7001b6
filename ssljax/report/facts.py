"""The time, speed, learning rate and address of single runs."""

import os
import urllib.parse
from pathlib import Path

from ssljax.overrides import flatten
from ssljax.report.runs import Run


def images_per_second(run: Run) -> float | None:
    """The mean speed of the steps whose speed was measured; None: no speed was measured."""
    steps, seconds = _measured(run)
    return steps / seconds if seconds else None


def training_seconds(run: Run) -> float | None:
    """The duration of all steps at their mean speed, without compilation, evaluation and saving.

    It is None if the run does not record its speed, or the number of images per step.
    """
    speed = images_per_second(run)
    per_step = run.starts[-1].get("images_per_step") if run.starts else None
    if not speed or not isinstance(per_step, int) or per_step < 1:
        return None
    return run.step * per_step / speed


def _measured(run: Run) -> tuple[float, float]:
    """The number of steps, and their total time in seconds per image of a step."""
    steps = seconds = 0.0
    before = 0
    for row in run.rows:
        if rate := row.get("images_per_second"):
            steps += row["step"] - before
            seconds += (row["step"] - before) / rate
        before = row["step"]
    return steps, seconds


def learning_rate(run: Run) -> float | None:
    """The learning rate in the recipe, before warm-up and decay."""
    value = flatten(run.config).get("optimizer.lr")
    return float(value) if isinstance(value, int | float) else None


def clock(seconds: float) -> str:
    """A duration as text: `2 h 05 min`, `3 min 20 s`, `12.3 s`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02} s"
    return f"{minutes // 60} h {minutes % 60:02} min"


def link(run: Run, output: Path) -> str:
    """The address of a run directory, relative to a page in `output`; "": there is none."""
    try:
        path = os.path.relpath(run.path.absolute(), output.absolute())
    except ValueError:  # on another drive
        return ""
    parts = Path(path).parts
    return "./" + "".join(f"{urllib.parse.quote(os.fsencode(part))}/" for part in parts)
