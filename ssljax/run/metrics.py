"""A run's metrics: `metrics.jsonl`, and TensorBoard files if TensorFlow is installed."""

import hashlib
import json
import math
import os
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from ssljax.errors import UsageError
from ssljax.log import LOG, quiet_import
from ssljax.run import events
from ssljax.storage.checksums import Prefix, recorded_rows
from ssljax.storage.files import parse_json, plain_path, write_bytes

if TYPE_CHECKING:  # reports read rows without importing JAX
    from ssljax.training.monitors import Metrics

Row = dict[str, Any]  # step: int; others: float, or None for a mean over no values


def summarize(metric_sums: "Metrics", class_counts: np.ndarray) -> Row:
    """Converts sums over some steps to means. A mean over no values is None.

    The vector of the predicted classes' frequencies becomes its entropy in nats: 0 if all images
    are assigned to one class, log(num_classes) if the classes are balanced. Of per-class vectors,
    the row has the values of the rarest and the most frequent class: `guess/class_accuracy` becomes
    `guess/accuracy_rarest` and `guess/accuracy_frequent`.

    Args:
      class_counts: `[C]`, labelled images per class. If all are equal, the classes guessed least
        and most often are used instead.
    """
    row: Row = {}
    for name, average in metric_sums.items():
        if name == "guess/classes":
            shares = np.asarray(average.total, np.float64) / float(average.count)
            row["guess/class_entropy"] = entropy(shares)
        elif np.ndim(average.count):
            guesses = metric_sums["guess/classes"].total
            for kind, c in _extremes(class_counts, guesses).items():
                key = f"{name.replace('class_', '')}_{kind}"
                row[key] = _mean(average.total[c], average.count[c])
        else:
            row[name] = _mean(average.total, average.count)
    return row


def _mean(total: Any, count: Any) -> float | None:
    return float(total) / float(count) if count else None


def _extremes(class_counts: np.ndarray, guesses: np.ndarray) -> dict[str, int]:
    """Returns the indices of the rarest and most frequent labelled class, see `summarize`."""
    order = np.lexsort((guesses, class_counts))
    labeled = order[class_counts[order] > 0]
    return {"rarest": int(labeled[0]), "frequent": int(labeled[-1])}


def entropy(shares: np.ndarray) -> float:
    """Returns the entropy in nats of class frequencies `shares [C]`."""
    return abs(float(np.sum(shares * np.log(np.maximum(shares, 1e-12)))))


class MetricsLog:
    """Appends rows to `metrics.jsonl` and to TensorBoard event files."""

    def __init__(self, workdir: Path, *, step: int, fallback: bool = False):
        """Opens the log of a run that resumes after `step`; later rows are dropped.

        Args:
          fallback: whether to continue with the readable rows of a damaged log, which is kept as
            `metrics.jsonl.damaged`.

        Raises:
          UsageError: rows up to `step` have been changed or are missing.
        """
        self._path = workdir / "metrics.jsonl"
        problems: list[str] = []
        self.rows = []
        if step:
            found = read_rows(self._path, problems.append, recorded_only=True)
            self.rows = [row for row in found if row["step"] <= step]
        if problems and not fallback:
            raise UsageError(
                f"{problems[0]}; restore it, or continue with its readable rows with "
                "--config.checkpoint.fallback=true"
            )
        if problems:
            LOG.warning(f"warning: {problems[0]}; continuing with {len(self.rows)} rows")
            if self._path.exists():
                self._path.replace(self._path.with_name("metrics.jsonl.damaged"))
        content = "".join(json.dumps(row) + "\n" for row in self.rows).encode()
        write_bytes(self._path, content)
        self._bytes, self._sha256 = len(content), hashlib.sha256(content)
        events.drop_after(workdir, step)
        self._stack = ExitStack()
        self._writer = _tensorboard(self._stack.enter_context(plain_path(workdir)))

    def write(self, row: Row) -> None:
        """Appends `row`, whose `step` counts steps; NaN and infinity become null."""
        clean = {k: v if v is None or math.isfinite(v) else None for k, v in row.items()}
        line = (json.dumps(clean) + "\n").encode()
        with self._path.open("ab") as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())  # must precede the checkpoint that refers to it
        self.rows.append(clean)
        self._bytes += len(line)
        self._sha256.update(line)
        if self._writer:
            scalars = {k: v for k, v in clean.items() if v is not None and k != "step"}
            self._writer.write_scalars(int(row["step"]), scalars)
            self._writer.flush()  # so that a kill does not lose rows that metrics.jsonl has

    def written(self) -> Prefix:
        """Returns the size and hash of the rows so far, which a checkpoint records."""
        return Prefix(self._bytes, self._sha256.hexdigest())

    def write_image(self, step: int, name: str, draw: Callable[[], np.ndarray]) -> None:
        """Adds a uint8 `[height, width, 3]` picture to TensorBoard; drawn only if there is one."""
        if self._writer:
            self._writer.write_images(step, {name: draw()[None]})

    def __enter__(self) -> "MetricsLog":
        return self

    def __exit__(self, *_: object) -> None:
        if self._writer:
            self._writer.close()
        self._stack.close()


def read_rows(
    path: Path, tell: Callable[[str], None] | None = None, *, recorded_only: bool = False
) -> list[Row]:
    """Reads the rows of a `metrics.jsonl`; an incomplete last line is ignored.

    Args:
      tell: receives a line about each problem, and readable rows are returned; None: raises.
      recorded_only: whether to read only the rows recorded by the newest checkpoint, if any.

    Raises:
      UsageError: a row is damaged, or rows have changed since the newest checkpoint was saved.
    """
    if tell is None:
        tell = _refuse
    content = path.read_bytes() if path.exists() else b""
    recorded = recorded_rows(path.parent)
    if recorded and not recorded.begins(content):
        what = "changed" if len(content) >= recorded.size else "lost rows"
        tell(f"{path} has {what} since the newest checkpoint was saved")
    elif recorded and recorded_only:
        content = content[: recorded.size]
    rows, damaged = [], []
    for number, line in enumerate(content.split(b"\n")[:-1], 1):
        try:
            rows.append(_row(line))
        except ValueError as error:
            damaged.append(f"line {number} ({' '.join(str(error).split())[:100]})")
    if damaged:
        more = f" and {len(damaged) - 1} others" if len(damaged) > 1 else ""
        tell(f"{path} cannot be read in {damaged[0]}{more}")
    return rows


def _refuse(text: str) -> NoReturn:
    raise UsageError(text)


def _row(line: bytes) -> Row:
    row = parse_json(line)
    if type(row.get("step")) is not int:
        raise ValueError("it is not a row with a step")
    for name, value in row.items():
        if not isinstance(value, int | float | None):
            raise ValueError(f"{name} is not a number")
    return row


def _tensorboard(workdir: Path) -> Any:
    try:
        with quiet_import():
            import tensorflow as tf
            from clu import metric_writers
    except ImportError:
        LOG.info("note: TensorFlow is not installed; metrics go to metrics.jsonl only")
        return None
    with suppress(RuntimeError):  # the program has already used TensorFlow
        tf.config.set_visible_devices([], "GPU")
    return metric_writers.SummaryWriter(str(workdir))
