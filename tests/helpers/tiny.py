"""Configs that compile and run in seconds."""

import dataclasses
import importlib
from typing import Any

import ml_collections

from ssljax import recipe
from ssljax.experiment import Experiment


def tiny_config(method: str = "fixmatch") -> ml_collections.ConfigDict:
    """Returns a recipe that compiles and runs in seconds, with 8 labelled images per step."""
    config = importlib.import_module(f"configs.{method}_digits").get_config()
    config.model_args.filters = 4
    config.model_args.scales = 1
    config.batch_size = 8
    config.uratio = 1 if method in ("mixmatch", "remixmatch") else 2
    config.num_steps = 12
    config.log_every = 2
    config.eval_every = 4
    config.ema_decay = 0.9
    return config


def tiny_vit(method: str = "fixmatch", **model_args: Any) -> ml_collections.ConfigDict:
    """Returns a recipe as `tiny_config`, with a vision transformer of two blocks and SGD."""
    config = tiny_config(method)
    config.model = "vit_tiny"
    config.model_args = dict(patch=4, width=8, heads=2, depth=2, **model_args)
    config.optimizer.name = "sgd"
    return config


_BUILT: dict[tuple[str, int | None], Experiment] = {}


def build(config: ml_collections.ConfigDict, devices: int | None = 1, **changes: Any) -> Experiment:
    """Builds the experiment of a config once, so that tests share what it compiles.

    Args:
      devices: number of devices, None: all. `training/test_step.py` tests several devices.
      changes: changes of fields that no compiled program reads, such as `log_every`.
    """
    key = str(config), devices
    if key not in _BUILT:
        _BUILT[key] = recipe.build(config, max_devices=devices)
    if not changes:
        return _BUILT[key]
    experiment = dataclasses.replace(_BUILT[key], **changes)
    for program in ("_initialize", "_steps", "_evaluator", "_traced", "train_step"):
        experiment.__dict__[program] = getattr(_BUILT[key], program)
    return experiment


# Overrides with which `photos` runs in seconds.
TINY_PHOTOS = [
    f"--config.{override}"
    for override in (
        "image_size=8", "augment.weak=weak_digits", "augment.strong=strong_digits",
        "model_args.filters=4", "model_args.scales=1", "batch_size=4", "uratio=1", "num_steps=4",
        "log_every=4", "eval_every=4", "ema_decay=0.5", "model_args.batch_norm_momentum=0.5",
    )
]  # fmt: skip
