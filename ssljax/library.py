"""Training as a function: `train` for a config, `fit` for arrays. `__init__.py` exports both."""

import dataclasses
import difflib
import tempfile
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import ml_collections
import numpy as np

from ssljax import defaults, generations, log, network, overrides, recipe, spelling
from ssljax.data.datasets import Dataset
from ssljax.data.splits import Split
from ssljax.description import describe
from ssljax.errors import UsageError
from ssljax.experiment import Experiment
from ssljax.inference import calibrate
from ssljax.log import LOG, printable
from ssljax.run import directory
from ssljax.storage import remote
from ssljax.trained import Trained, load
from ssljax.training import hosts

_TINY = 16  # image side in pixels below which the digits' augmentation is used


def train(config: ml_collections.ConfigDict, workdir: Path | str) -> Trained:
    """Trains the recipe `config` in the run directory `workdir`, resuming a run found there.

    Training runs on the devices available to JAX and logs to `logging.getLogger("ssljax")`.

    Returns:
      The trained model, with the weights of the moving average.

    Raises:
      UsageError, RunError, Interrupted: as for `recipe.build` and `run.loop.train`.
    """
    log.show_lines()
    if config.num_seeds > 1:
        raise UsageError(f"config.num_seeds is {config.num_seeds}; allowed here: 1")
    begun = directory.begun(remote.opened(workdir))
    return _train(recipe.build(config, **begun._asdict()), str(workdir))


def _train(experiment: Experiment, workdir: str) -> Trained:
    LOG.info("%s\nrun directory: %s", describe(experiment), workdir)
    last, run, results = generations.train(experiment, workdir)
    model = load(run, model=last.config["model"])
    model = calibrate.store(model, last.dataset, last.split)
    return dataclasses.replace(model, results=results)


def fit(
    images: np.ndarray,
    labels: Sequence[Hashable | None] | np.ndarray,
    unlabeled: np.ndarray | None = None,
    *,
    method: str = "fixmatch",
    test_images: np.ndarray | None = None,
    test_labels: Sequence[Hashable] | np.ndarray | None = None,
    workdir: Path | str | None = None,
    **knobs: Any,
) -> Trained:
    """Trains on arrays in memory.

    The network, the augmentation and the schedule are chosen by the size of the images. Any knob of
    `ssljax/defaults.py` can be set: `num_steps=400`, `optimizer={"lr": 0.1}`,
    `method_args={"threshold": 0.9}`.

    Args:
      images: uint8 `[N, H, W, C]` with C = 1 or 3, or `[N, H, W]`.
      labels: `[N]`, any hashable values; -1 or None marks an image without a label.
      unlabeled: further images without labels, uint8 `[M, H, W, C]`.
      method: the name of a method, such as fixmatch, mixmatch or supervised.
      test_images: images evaluated during training, uint8 `[T, H, W, C]`; None: no evaluation.
      test_labels: `[T]`, each one of the values in `labels`.
      workdir: the run directory; None: a temporary directory, which is kept until the machine
        restarts.

    Returns:
      The trained model. Its `predict` returns labels as given in `labels`.

    Raises:
      UsageError: the arrays do not fit together, or a knob does not exist.
      RunError, Interrupted: as for `run.loop.train`.
    """
    log.show_lines()
    dataset, classes = _dataset(images, labels, unlabeled, test_images, test_labels)
    labeled = np.flatnonzero(dataset.labels >= 0)
    split = Split(labeled, np.arange(len(dataset.labels)), np.arange(0))
    config = _config(dataset, len(labeled), method)
    _change(config, knobs)
    count = len(network.available())
    sizes = config.batch_size, config.batch_size * config.uratio
    usable = max(n for n in range(1, count + 1) if not any(size % n for size in sizes))
    started = workdir is not None and directory.begun(remote.opened(workdir)).started
    experiment = recipe.build(config, data=(dataset, split), started=started, max_devices=usable)
    if workdir is None:
        workdir = hosts.broadcast_from_first(lambda: tempfile.mkdtemp(prefix="ssljax-"))
    return dataclasses.replace(_train(experiment, str(workdir)), classes=classes)


def _dataset(
    images: np.ndarray, labels: Any, unlabeled: Any, test_images: Any, test_labels: Any
) -> tuple[Dataset, tuple[Hashable, ...]]:
    """Returns the arrays as a data set, and the label of each class number."""
    images = _images("images", images, None)
    given = _labels("labels", labels, len(images))
    classes = _classes([label for label in given if not _is_missing(label)])
    numbers = {label: number for number, label in enumerate(classes)}
    known = [-1 if _is_missing(label) else numbers[label] for label in given]
    more = _images("unlabeled", images[:0] if unlabeled is None else unlabeled, images)
    if (test_images is None) != (test_labels is None):
        raise UsageError("test_images and test_labels: only one is given; allowed: both, or none")
    test = _images("test_images", images[:0] if test_images is None else test_images, images)
    truth = _labels("test_labels", [] if test_labels is None else test_labels, len(test))
    for label in truth:
        if label not in numbers:
            raise UsageError(f"test_labels holds {label!r}; allowed: the labels that images have")
    dataset = Dataset(
        images=np.concatenate([images, more]),
        labels=np.concatenate([np.array(known, np.int64), np.full(len(more), -1)]),
        test_images=test,
        test_labels=np.array([numbers[label] for label in truth], np.int64),
        num_classes=len(classes),
        class_names=tuple(map(printable, classes)),
    )
    return dataset, classes


def _images(name: str, images: Any, like: np.ndarray | None) -> np.ndarray:
    images = np.asarray(images)
    if images.ndim == 3:
        images = images[..., None]
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] not in (1, 3):
        found = f"{images.dtype} {list(images.shape)}"
        raise UsageError(f"{name}: {found}; allowed: uint8 [N, H, W, 1 or 3], values 0 to 255")
    if like is None and not len(images):
        raise UsageError(f"{name}: there are none; allowed: from 1 up")
    if like is not None and images.shape[1:] != like.shape[1:]:
        raise UsageError(
            f"{name}: of size {list(images.shape[1:])}; allowed: {list(like.shape[1:])}, the size "
            "of images"
        )
    return images


def _labels(name: str, labels: Any, count: int) -> list[Any]:
    """Converts labels to Python values, which compare equal whatever array type they came in."""
    values = labels.tolist() if isinstance(labels, np.ndarray) else list(labels)
    values = [value.item() if isinstance(value, np.generic) else value for value in values]
    if len(values) != count:
        raise UsageError(f"{name}: {len(values)} of them; allowed: {count}, one per image")
    for value in values:
        if not isinstance(value, Hashable):
            raise UsageError(f"{name} holds {value!r}; allowed: anything hashable, -1 or None")
    return values


def _is_missing(label: Any) -> bool:
    return label is None or (not isinstance(label, bool | str) and label == -1) or label != label


def _classes(labels: Sequence[Any]) -> tuple[Hashable, ...]:
    """Returns the distinct labels, sorted if they can be compared, else in order of appearance."""
    different = list(dict.fromkeys(labels))
    if len(different) < 2:
        raise UsageError(f"labels: {len(different)} different ones; allowed: from 2 classes up")
    try:
        return tuple(sorted(different))
    except TypeError:
        return tuple(different)


def _config(dataset: Dataset, labeled: int, method: str) -> ml_collections.ConfigDict:
    """Returns a config for short runs: a small network and averages, as for the digits."""
    side = min(dataset.image_shape[:2])
    config = defaults.get_config().unlock()
    config.dataset = f"arrays.0@{labeled}-0"
    config.unlabeled = "all"
    config.method = method
    config.model_args = dict(filters=16, repeat=1 if side < _TINY else 2, batch_norm_momentum=0.95)
    config.augment.weak = "weak_digits" if side < _TINY else "weak_svhn"
    config.augment.strong = "strong_digits" if side < _TINY else "randaugment"
    config.batch_size = 8 if side < _TINY else 16
    config.uratio = 1 if method in ("mixmatch", "remixmatch") else 7
    config.num_steps = 1000
    config.optimizer.name = "sgd"
    config.optimizer.lr = 0.03
    config.optimizer.schedule = "cosine"
    config.optimizer.weight_decay = 0.01 if side < _TINY else 0.0005
    config.ema_decay = 0.99
    config.log_every = config.eval_every = 100
    config.keep_checkpoints = 0
    overrides.choose_arguments(config)
    return config.lock()


def _change(config: ml_collections.ConfigDict, knobs: Mapping[str, Any]) -> None:
    """Sets knobs given as keywords; a group of knobs is given as a dict."""
    if "model" in knobs and knobs["model"] != config.model:
        overrides.choose_arguments(config, [f"model={knobs['model']}"])
    known = overrides.flatten(config.to_dict())
    groups = [key for key, value in config.items() if isinstance(value, ml_collections.ConfigDict)]
    for knob, value in knobs.items():
        if knob not in (*known, *groups):
            near = difflib.get_close_matches(knob, [*config], n=1, cutoff=0.7)
            name = near[0] if near else spelling.nearest_knob(knob, known)
            raise UsageError(f"{knob}={value!r}: there is no such knob; the nearest is {name}")
    for knob, value in overrides.flatten(knobs).items():
        if knob not in known:
            raise UsageError(spelling.unknown_knob(knob, known))
        try:
            config.update_from_flattened_dict({knob: value})
        except (TypeError, ValueError) as error:
            raise UsageError(f"{knob}={value!r}: {' '.join(str(error).split())}") from error
