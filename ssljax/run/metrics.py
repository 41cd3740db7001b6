"""Where the numbers of a run go: `metrics.jsonl`, and TensorBoard where TensorFlow is installed."""

import json
import math
import os
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ssljax.log import LOG, quiet_import
from ssljax.run import events
from ssljax.storage.files import plain_path, write_text

if TYPE_CHECKING:  # reports read rows without JAX
    from ssljax.training.monitors import Metrics

Row = dict[str, Any]  # step: int; others: float, or None for a mean over nothing


def summarize(metric_sums: "Metrics") -> Row:
    """Sums over some steps -> their means. A mean over nothing is None.

    The shares of the predicted classes, a vector, become their entropy in nats: 0 when all images
    are given one class, log(num_classes) when the classes are balanced.
    """
    row: Row = {}
    for name, average in metric_sums.items():
        count = float(average.count)
        if name == "guess/classes":
            row["guess/class_entropy"] = entropy(np.asarray(average.total, np.float64) / count)
        else:
            row[name] = float(average.total) / count if count else None
    return row


def entropy(shares: np.ndarray) -> float:
    """Of classes with these shares, in nats."""
    return abs(float(np.sum(shares * np.log(np.maximum(shares, 1e-12)))))


class MetricsLog:
    """Appends rows to `metrics.jsonl` and to TensorBoard event files."""

    def __init__(self, workdir: Path, *, step: int):
        """Opens the log of a run that goes on after `step`; later rows are dropped."""
        self._path = workdir / "metrics.jsonl"
        rows = [row for row in read_rows(self._path) if row["step"] <= step]
        write_text(self._path, "".join(json.dumps(row) + "\n" for row in rows))
        events.drop_after(workdir, step)
        self._stack = ExitStack()
        self._writer = _tensorboard(self._stack.enter_context(plain_path(workdir)))

    def write(self, row: Row) -> None:
        """Appends `row`, whose `step` counts steps; NaN and infinity become null."""
        clean = {k: v if v is None or math.isfinite(v) else None for k, v in row.items()}
        with self._path.open("a") as file:
            file.write(json.dumps(clean) + "\n")
            file.flush()
            os.fsync(file.fileno())  # before the checkpoint that follows it
        if self._writer:
            scalars = {k: v for k, v in clean.items() if v is not None and k != "step"}
            self._writer.write_scalars(int(row["step"]), scalars)
            self._writer.flush()  # a kill must not lose what metrics.jsonl keeps

    def write_image(self, step: int, name: str, draw: Callable[[], np.ndarray]) -> None:
        """Shows a uint8 `[height, width, 3]` picture in TensorBoard; drawn only if there is one."""
        if self._writer:
            self._writer.write_images(step, {name: draw()[None]})

    def __enter__(self) -> "MetricsLog":
        return self

    def __exit__(self, *_: object) -> None:
        if self._writer:
            self._writer.close()
        self._stack.close()


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a `metrics.jsonl`; a last line that a kill cut short is left out."""
    if not path.exists():
        return []
    lines = path.read_text().splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


def _tensorboard(workdir: Path) -> Any:
    try:
        with quiet_import():
            import tensorflow as tf
            from clu import metric_writers
    except ImportError:
        LOG.info("note: TensorFlow is not installed; metrics go to metrics.jsonl only")
        return None
    with suppress(RuntimeError):  # the program has used TensorFlow before
        tf.config.set_visible_devices([], "GPU")
    return metric_writers.SummaryWriter(str(workdir))
