"""What a run leaves for its report, beside numbers: so that a report needs no data and no device.

environment.json  versions and devices of each start
labelled.png      the labelled images, the first of each class
predictions.npz   for each test image, what the EMA model said at the newest evaluation
failure.txt       why the run cannot go on; gone once it does
"""

import functools
import os
import platform
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ssljax.augment import contact_sheet
from ssljax.augment.ops import to_float
from ssljax.data import overview
from ssljax.data.datasets import Dataset
from ssljax.data.load import labeled_validation
from ssljax.errors import Interrupted, UsageError
from ssljax.experiment import Experiment
from ssljax.run import metrics
from ssljax.storage.files import read_json, write_json
from ssljax.training import parallel
from ssljax.training.state import TrainState

_PACKAGES = ("ssljax", "jax", "jaxlib", "flax", "optax", "numpy")
_MISTAKES = 24  # images of the most confident ones that are kept
_PER_CLASS = 10  # labelled images of a class that are drawn
_VIEWED = 8  # images whose views TensorBoard shows


def begin(experiment: Experiment, workdir: Path, log: metrics.MetricsLog, *, step: int) -> None:
    """Notes where the run goes on after `step`; before the first one, draws what it will see."""
    _note_start(workdir, step, experiment.devices)
    if step:
        return
    if isinstance(experiment.dataset, Dataset):  # from a stream, it would take minutes
        sheet = overview.contact_sheet(experiment.dataset, experiment.split, per_class=_PER_CLASS)
        sheet.save(workdir / "labelled.png")
    log.write_image(step, "views", lambda: _views(experiment))


def _views(experiment: Experiment) -> np.ndarray:
    images = experiment.dataset.pick(experiment.split.labeled[:_VIEWED])
    key = jax.random.key(experiment.seed)
    return contact_sheet.draw(key, images, experiment.augmentation, magnitude_grid=False)


def _note_start(workdir: Path, step: int, devices: Sequence[jax.Device]) -> None:
    """Adds a start to `environment.json`, unless it is as the one before."""
    path = workdir / "environment.json"
    try:
        starts = read_json(path)["starts"]
    except (UsageError, KeyError):
        starts = []
    here = environment(devices)
    if not starts or {k: v for k, v in starts[-1].items() if k != "step"} != here:
        write_json(path, {"starts": [*starts, {"step": step, **here}]})


def environment(devices: Sequence[jax.Device]) -> dict[str, Any]:
    """Versions and hardware."""
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
    """Writes `failure.txt` if the run ends with an error; an interrupted run has not failed."""
    path = workdir / "failure.txt"
    path.unlink(missing_ok=True)
    try:
        yield
    except Interrupted:
        raise
    except Exception as error:
        with suppress(OSError):  # a full disk, perhaps
            path.write_text(f"{type(error).__name__}: {error}\n")
        raise


def write_predictions(
    experiment: Experiment, state: TrainState, workdir: Path, *, step: int
) -> None:
    """Writes `predictions.npz`, of a streamed data set after the last step only.

    It holds `step`, `part` (test or validation), and for each of its T images `labels` and
    `predicted` `[T]` int32 and `confidence` `[T]` float32, the EMA model's largest probability;
    and of the K most confident mistakes `mistakes` `[K]` int32, which images these are, and
    `mistake_images` `[K, H, W, C]` uint8.
    """
    if not isinstance(experiment.dataset, Dataset) and step < experiment.num_steps:
        return
    data, size = experiment.dataset, experiment.eval_batch_size
    tested = len(data.test_labels) > 0
    if tested:
        batches = data.test_batches(np.arange(len(data.test_labels)), size)
    else:
        batches = data.batches(labeled_validation(data, experiment.split), size)
    params, batch_stats = parallel.fetch(state.weights("ema"))
    variables = jax.device_put(
        {"params": params, "batch_stats": batch_stats}, experiment.devices[0]
    )
    labels: list[np.ndarray] = []
    predicted: list[np.ndarray] = []
    confidence: list[np.ndarray] = []
    mistakes: list[tuple[float, int, np.ndarray]] = []
    for images, truth in batches:
        says, sure = jax.device_get(_predict(experiment.model, variables, images))
        first = sum(map(len, labels))
        wrong = np.flatnonzero(says != truth)
        mistakes += [(float(sure[i]), first + int(i), images[i]) for i in wrong]
        mistakes = sorted(mistakes, key=lambda m: (-m[0], m[1]))[:_MISTAKES]
        labels.append(truth.astype(np.int32))
        predicted.append(says)
        confidence.append(sure)
    partial = workdir / "predictions.partial.npz"
    np.savez_compressed(
        partial,
        step=step,
        part="test" if tested else "validation",
        labels=np.concatenate(labels),
        predicted=np.concatenate(predicted),
        confidence=np.concatenate(confidence),
        mistakes=np.array([index for _, index, _ in mistakes], np.int32),
        mistake_images=np.array([image for _, _, image in mistakes], np.uint8).reshape(
            -1, *data.image_shape
        ),
    )
    partial.replace(workdir / "predictions.npz")


@functools.partial(jax.jit, static_argnums=0)
def _predict(model: nn.Module, variables: Any, images: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The class of each image, and its probability."""
    logits, _ = model.apply(variables, to_float(images), train=False)
    probabilities = jax.nn.softmax(logits)
    return jnp.argmax(logits, axis=-1).astype(jnp.int32), jnp.max(probabilities, axis=-1)
