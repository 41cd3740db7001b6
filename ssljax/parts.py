"""Builds the parts of a run from a config: data, method, model, optimizer, augmentation."""

import inspect
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import ml_collections
import numpy as np
import optax

import ssljax.methods
import ssljax.models
from ssljax import paths
from ssljax.augment import augmentation, policies
from ssljax.augment.augmentation import Augmentation
from ssljax.checks import (
    call,
    check_choice,
    check_kinds,
    check_range,
    check_returned,
    prefix_errors,
)
from ssljax.data import splits
from ssljax.data.datasets import Dataset
from ssljax.data.load import CONVENTIONS, LABELS_PER_CLASS, load
from ssljax.data.splits import Split
from ssljax.data.streaming import StreamedDataset
from ssljax.errors import UsageError
from ssljax.lookup import find, modules_of
from ssljax.methods.method import Method
from ssljax.network import groups_of
from ssljax.storage import remote
from ssljax.training import optim, trainable
from ssljax.training.trainable import Trainable


def make_method(config: ml_collections.ConfigDict, split: Split) -> Method:
    methods = modules_of(ssljax.methods, without=["method"])
    method = call(find("config.method", config.method, methods), config, "method")
    check_returned("config.method", config.method, method, Method)
    if method.views and not len(split.unlabeled):
        raise UsageError(
            f"config.dataset {config.dataset} leaves no unlabelled images, which config.method "
            f"{config.method} needs"
        )
    return method


def load_data(config: ml_collections.ConfigDict) -> tuple[Dataset | StreamedDataset, Split]:
    """Loads the data of a recipe, without its other parts.

    Raises:
      UsageError: the data cannot be read or split as `config` says.
    """
    with prefix_errors(""):
        check_choice("config.unlabeled", config.unlabeled, CONVENTIONS)
        check_choice("config.labels_per_class", config.labels_per_class, LABELS_PER_CLASS)
        check_range("config.image_size", config.image_size)
    for knob, place in (
        ("dataset", splits.place(config.dataset)),
        ("split_file", config.split_file),
    ):
        if remote.is_remote(place):
            raise UsageError(
                f"config.{knob} is at the URL {place}; allowed: a path, to which "
                "config.stage.data_url can copy it"
            )
    if config.stage.data_url:
        if not config.data_dir or remote.is_remote(config.data_dir):
            raise UsageError(
                f"config.data_dir is {config.data_dir!r}; allowed with config.stage.data_url: the "
                "local directory that it is copied to"
            )
        copy_to = Path(paths.expand(config.data_dir, "config.data_dir"))
        remote.copy_in(config.stage.data_url, copy_to, "config.stage.data_url")
    with prefix_errors("config.dataset"):
        return load(
            config.dataset,
            unlabeled=config.unlabeled,
            labels_per_class=config.labels_per_class,
            data_dir=config.data_dir,
            image_size=config.image_size,
            path=paths.expand(config.split_file, "config.split_file"),
            stream=config.stream,
        )


def make_trainable(config: ml_collections.ConfigDict, model: nn.Module) -> Trainable:
    """Builds the choice of trainable parameters that `config.trainable` describes."""
    with prefix_errors("config"):
        return trainable.make_trainable(config.trainable, **groups_of(model)._asdict())


def tuned(config: ml_collections.ConfigDict, model: nn.Module) -> nn.Module:
    """Returns the network for training, configured with the number of its frozen groups.

    Raises:
      UsageError: the network has no groups that could be frozen.
    """
    with prefix_errors("config"):
        kind, number = trainable.parse(config.trainable)
    if kind != "last":
        return model
    if not hasattr(model, "frozen"):
        raise UsageError(
            f"config.trainable is {config.trainable!r}; allowed for config.model "
            f"{config.model!r}, whose blocks have no names: all, head"
        )
    return model.clone(frozen=groups_of(model).groups - 1 - number)


def make_optimizer(
    config: ml_collections.ConfigDict, steps_per_epoch: float, model: nn.Module
) -> tuple[optax.Schedule, optax.GradientTransformation]:
    with prefix_errors("config.optimizer"):
        knobs, groups = config.optimizer, groups_of(model)
        schedule = optim.make_schedule(
            knobs.schedule,
            lr=knobs.lr * (config.batch_size / knobs.lr_batch_size if knobs.lr_batch_size else 1),
            steps=config.num_steps,
            steps_per_epoch=steps_per_epoch,
            warmup_epochs=knobs.warmup_epochs,
            warmup_steps=knobs.warmup_steps,
            decay_epochs=knobs.decay_epochs,
            cosine_level=knobs.cosine_level,
        )
        return schedule, optim.make_optimizer(
            knobs.name,
            schedule,
            weight_decay=knobs.weight_decay,
            momentum=knobs.momentum,
            clip_norm=knobs.clip_norm,
            layer_decay=knobs.layer_decay,
            group=groups.group,
            groups=groups.groups,
        )


def make_augmentation(
    knobs: Any, method: Method, image_shape: tuple[int, int, int]
) -> Augmentation:
    """Builds the augmentation; `knobs.strong` receives those of its arguments that are knobs.

    If `knobs.strong` is a user-defined view, a function of (keys, images), it is the strong view.
    """
    weak = find("config.augment.weak", knobs.weak, [policies])
    name = "type" if "type" in knobs else "strong"  # the ImageNet recipes, as published
    strong = find(f"config.augment.{name}", knobs.strong, [augmentation])
    takes = inspect.signature(strong).parameters
    if [*takes][:2] == ["keys", "images"]:
        found = Augmentation(lambda state: {"weak": weak, "strong": strong}, lambda image: {})
    else:
        given = {arg: weak if arg == "weak" else knobs[arg] for arg in takes if arg in knobs}
        with prefix_errors(""):
            check_kinds("config.augment", strong, given)
        with prefix_errors("config.augment"):
            found = strong(**given)
        check_returned(f"config.augment.{name}", knobs.strong, found, Augmentation)
    if "." in knobs.weak + knobs.strong:
        _check_views(found, knobs, image_shape)
    views = {*policies.PLAIN, *found.views(found.init())}
    for view in (method.labeled_view, *method.views, *method.more_labeled_views):
        if view not in views:
            raise UsageError(
                f"config.method names the view {view!r}; config.augment has: "
                f"{', '.join(sorted(views))}"
            )
    return found


def _check_views(found: Augmentation, knobs: Any, image_shape: tuple[int, int, int]) -> None:
    """Checks the output shapes and types of user-defined views, without computing them."""
    images = jax.ShapeDtypeStruct((2, *image_shape), np.uint8)
    for view, function in found.views(found.init()).items():
        field = f"config.augment.{view} {knobs[view]!r}" if view in knobs else f"view {view!r}"

        def see(images: jax.Array, function: Any = function) -> Any:
            return function(jax.random.split(jax.random.PRNGKey(0), 2), images)

        with prefix_errors(field):
            seen = jax.eval_shape(see, images)
        shape, dtype = getattr(seen, "shape", None), getattr(seen, "dtype", type(seen).__name__)
        if (shape, dtype) != (images.shape, images.dtype):
            raise UsageError(
                f"{field} makes {dtype} {list(shape or ())} of uint8 {list(images.shape)}; "
                "allowed: the same type and shape"
            )
