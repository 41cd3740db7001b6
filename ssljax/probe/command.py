"""`--mode=probe`: probes a recipe's data and network, and writes `probe.json` and `probe.csv`."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from ssljax import overrides, parts, paths
from ssljax.checks import missing_knobs, prefix_errors
from ssljax.data import memory, splits
from ssljax.data.datasets import Dataset
from ssljax.data.load import labeled_validation
from ssljax.data.splits import Split
from ssljax.errors import UsageError
from ssljax.log import LOG
from ssljax.network import make_model
from ssljax.pretrained.features import FOLDER, Features
from ssljax.probe import measure
from ssljax.probe.measure import Images, Row
from ssljax.spreadsheet import inert
from ssljax.storage.files import write_json, write_text
from ssljax.training import pretrained
from ssljax.training.state import over

_FILES = ("probe.json", "probe.csv")


def probe(
    config: ml_collections.ConfigDict, workdir: Path, *, labels: Sequence[int], sets: int
) -> str:
    """Probes the features of the network `config.model` with the weights of `config.init_from`.

    Args:
      labels: numbers of labelled images to try; empty: 1, 2, 5 … per class.
      sets: number of labelled sets per number of labels, at least 1.

    Returns:
      The table of errors and a sentence on them.

    Raises:
      UsageError: the data are streamed or have too few labels, or the weights do not fit.
    """
    with missing_knobs():
        overrides.choose_arguments(config)
        weights = None
        if config.init_from:
            weights = pretrained.read(config.init_from, config.init_from_sha256)
        data, split = parts.load_data(config)
        if not isinstance(data, Dataset):
            raise UsageError(f"config.dataset {config.dataset} is streamed; allowed: in memory")
        wanted = len(split.labeled)
        tried = _tried(data, split, labels, wanted)
        features, source = _features(config, data, weights)
        images = _images(data, split, features)
        balanced = config.labels_per_class == "balanced"
    rows = measure.measure(images, tried, sets, balanced=balanced)
    best = measure.bound(images)
    sentence = measure.verdict(rows, best, wanted)
    record = {
        "dataset": splits.without_numbers(config.dataset),
        "model": config.model,
        "weights": source,
        "part": images.part,
        "images": len(images.asked),
        "labels": wanted,
        "rows": measure.as_records(rows),
        "bound": measure.as_records([best])[0],
        "verdict": sentence,
    }
    workdir.mkdir(parents=True, exist_ok=True)
    write_text(workdir / "probe.csv", _comma_separated(config, rows))
    write_json(workdir / "probe.json", record)
    errors = f"errors in % on {images.part} images, mean ± standard deviation over {sets} sets"
    return f"{errors}\n{measure.table(rows, data.num_classes)}\n{sentence}"


def _tried(data: Dataset, split: Split, labels: Sequence[int], wanted: int) -> list[int]:
    """The numbers of labels to try, checked before any feature is computed."""
    with prefix_errors("--mode=probe"):
        return measure.sizes(_images(data, split, None), labels, wanted)


def _images(data: Dataset, split: Split, features: Features | None) -> Images:
    """The features of a data set; if `features` is None, empty ones, to count images and labels."""

    def of(images: np.ndarray, title: str) -> np.ndarray:
        if features is None:
            return np.zeros((len(images), 0), np.float32)
        return features.of(images, title)

    valid = labeled_validation(data, split)
    labels = data.labels
    if len(data.test_labels):
        part, asked, truth = "test", data.test_images, data.test_labels
    else:
        part, asked, truth = "validation", data.images[valid], data.labels[valid]
        labels = labels.copy()
        labels[split.valid] = -1  # errors are measured on these images
    return Images(
        of(data.images, "training images"), labels, of(asked, f"{part} images"), truth, part,
        data.num_classes,
    )  # fmt: skip


def _features(
    config: ml_collections.ConfigDict, data: Dataset, weights: Any
) -> tuple[Features, dict[str, Any]]:
    """The network's features, and the record of its weights for `probe.json`."""
    model = make_model(config, num_classes=data.num_classes, dtype=jnp.float32, axis_name=None)
    images = jnp.zeros((1, *data.image_shape))
    init = jax.jit(lambda key: model.init(key, images, train=False))
    with prefix_errors("config"):
        made = jax.device_get(init(jax.random.PRNGKey(config.seed)))
    params, batch_stats = made["params"], made.get("batch_stats", {})
    record: dict[str, Any] = {"init_from": ""}
    if weights is None:
        LOG.warning("warning: config.init_from is '': the features are those of a random network")
    else:
        start = pretrained.fitted(weights, model, config.model, image_shape=data.image_shape)
        for line in start.lines:
            LOG.info("%s", line)
        params, batch_stats = over(params, start.params), over(batch_stats, start.batch_stats)
        record = start.record
    size = memory.describe(len(data.labels) * data.images[0].nbytes if len(data.labels) else 0)
    LOG.info("%d training and %d test images, %s", len(data.labels), len(data.test_labels), size)
    folder = Path(paths.expand(config.feature_cache or FOLDER, "config.feature_cache"))
    found = Features(model, params, batch_stats, devices=jax.local_devices(), folder=folder)
    return found, record


def _comma_separated(config: ml_collections.ConfigDict, rows: Sequence[Row]) -> str:
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["data_set", "model", "method", "labels", "sets", "error_mean", "error_std"])
    name = splits.without_numbers(config.dataset)
    for row in rows:
        about = [inert(name), config.model, row.method, row.labels, len(row.errors)]
        writer.writerow([*about, row.mean, "" if row.std is None else row.std])
    return file.getvalue()


def require_free(workdir: Path) -> None:
    """Refuses a run directory, and one with a `probe.csv` that is not from a probe.

    Raises:
      UsageError: the directory is one of these.
    """
    paths.require_writable(workdir, "--workdir")
    if (workdir / "config.json").exists():
        raise UsageError(f"workdir {workdir} holds a run; --mode=probe needs another directory")
    there = [name for name in _FILES if (workdir / name).exists()]
    if there == ["probe.csv"]:
        raise UsageError(
            f"{workdir}/probe.csv exists already and is not from a probe; use another workdir"
        )
