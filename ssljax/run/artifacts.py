"""Files that a run writes for its report, so that the report needs neither data nor a device.

environment.json  versions, devices and images of a step of each start
labelled.png      the labelled images, the first of each class, with their names as the file's text
predictions.npz   for each test image, what the EMA model said at the newest evaluation
curve.png         the error over the steps, once the run is complete
failure.txt       why the run cannot continue; removed once it does
"""

import os
import platform
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ssljax.augment import contact_sheet
from ssljax.data import overview
from ssljax.data.datasets import Dataset
from ssljax.data.load import labeled_validation
from ssljax.errors import Interrupted, UsageError
from ssljax.experiment import Experiment
from ssljax.log import LOG
from ssljax.run import metrics, results
from ssljax.run.evaluate import Predictions
from ssljax.storage.files import read_json, replacing, write_picture, write_sealed, write_text

_PACKAGES = ("ssljax", "jax", "jaxlib", "flax", "optax", "numpy")
_PER_CLASS = 10  # labelled images drawn per class
_VIEWED = 8  # images whose views are shown in TensorBoard


def begin(experiment: Experiment, workdir: Path, log: metrics.MetricsLog, *, step: int) -> None:
    """Notes where the run goes on after `step`; before the first one, draws what it will see."""
    _note_start(workdir, step, experiment.devices, experiment.images_per_step)
    if step:
        return
    if isinstance(experiment.dataset, Dataset):  # drawing a stream would take minutes
        sheet = overview.contact_sheet(experiment.dataset, experiment.split, per_class=_PER_CLASS)
        write_picture(workdir / "labelled.png", sheet)
    log.write_image(step, "views", lambda: _views(experiment))


def _views(experiment: Experiment) -> np.ndarray:
    images = experiment.dataset.pick(experiment.split.labeled[:_VIEWED])
    key = jax.random.key(experiment.seed)
    return contact_sheet.draw(key, images, experiment.augmentation, magnitude_grid=False)


def _note_start(
    workdir: Path, step: int, devices: Sequence[jax.Device], images_per_step: int = 0
) -> None:
    """Adds a start to `environment.json`, unless it is as the one before.

    Args:
      images_per_step: images that enter the network in a step, for the report's times; 0: omitted.
    """
    path = workdir / "environment.json"
    try:
        starts = read_json(path, starts=list)["starts"] if path.exists() else []
    except UsageError as error:
        LOG.warning(f"warning: {error}; it is kept as {path.name}.damaged")
        path.replace(path.with_name(f"{path.name}.damaged"))
        starts = []
    here = environment(devices)
    if images_per_step:
        here["images_per_step"] = images_per_step
    last = starts[-1] if starts and isinstance(starts[-1], dict) else {}
    if {k: v for k, v in last.items() if k != "step"} != here:
        write_sealed(path, {"starts": [*starts, {"step": step, **here}]})


def environment(devices: Sequence[jax.Device]) -> dict[str, Any]:
    """Returns versions and hardware."""
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:  # run from a checkout that is not installed
            versions[package] = "unknown"
    return {
        "versions": versions,
        "devices": f"{len(devices)} × {devices[0].device_kind}",
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
    }


@contextmanager
def noting_failure(workdir: Path) -> Iterator[None]:
    """Writes `failure.txt` if the run ends with an error; an interruption is not a failure."""
    path = workdir / "failure.txt"
    path.unlink(missing_ok=True)
    try:
        yield
    except Interrupted:
        raise
    except Exception as error:
        with suppress(OSError):  # e.g. the disk is full
            text = f"{type(error).__name__}: {error}\n"  # may come from user code
            write_text(path, text.encode(errors="backslashreplace").decode())
        raise


def write_predictions(
    experiment: Experiment, predictions: Predictions, workdir: Path, *, step: int
) -> None:
    """Writes `predictions.npz`; for a streamed data set, only after the last step.

    It holds `step`; the fields of `evaluate.Predictions`, which documents them; and
    `mistake_names` `[K]`, the names of the mistakes' images.
    """
    if not isinstance(experiment.dataset, Dataset) and step < experiment.num_steps:
        return
    names = np.array(_mistake_names(experiment, predictions), np.str_)
    with replacing(workdir / "predictions.npz") as file:
        np.savez_compressed(file, step=step, mistake_names=names, **predictions._asdict())


def _mistake_names(experiment: Experiment, predictions: Predictions) -> list[str]:
    """Returns the mistakes' files, or numbers from 0; "" if damaged images make these ambiguous."""
    data = experiment.dataset
    names = data.names("test")
    if predictions.part == "validation":
        train = data.names()
        names = [train[i] for i in labeled_validation(data, experiment.split)]
    known = len(names) == len(predictions.labels)
    return [names[i] if known else "" for i in predictions.mistakes]


def write_curve(workdir: Path, rows: Sequence[metrics.Row]) -> Path | None:
    """Draws `curve.png`: the error of the EMA weights at each evaluation. None: no evaluations."""
    part = results.evaluated_part(rows)
    key = results.HEADLINES[part]
    points = [(row["step"], 100 * (1 - row[key])) for row in rows if row.get(key) is not None]
    if not points:
        return None
    from ssljax.drawing import Figure  # takes a second to import

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot(
        xlabel="step", ylabel=f"{part} error, %", title="EMA weights", xlim=(0, points[-1][0])
    )
    axes.plot(*zip(*points, strict=True), marker="." if len(points) < 40 else "")
    axes.grid(alpha=0.3)
    with replacing(workdir / "curve.png") as file:
        figure.savefig(file, format="png", dpi=120)
    return workdir / "curve.png"


def tell_what_is_there(workdir: Path, runs: Sequence[str] = ("",)) -> None:
    """Prints the most useful files of a finished run, and the report's command.

    Args:
      runs: the run directories in `workdir`; by default `workdir` itself.
    """
    name = Path(sys.argv[0]).name
    program = "python launch.py" if name == "launch.py" else "ssljax"
    for directory in (workdir / run for run in runs):
        LOG.info("numbers: %s and %s", directory / "results.json", directory / "metrics.jsonl")
        if (directory / "curve.png").exists():
            LOG.info("curve: %s", directory / "curve.png")
    LOG.info("report: %s --mode=report --workdir=%s", program, shlex.quote(str(workdir)))
