"""Configs that compile and run in seconds."""

import dataclasses
import importlib

import jax
import ml_collections

from ssljax import recipe
from ssljax.experiment import Experiment


def tiny_config(method: str = "fixmatch") -> ml_collections.ConfigDict:
    """A recipe that compiles and runs in seconds, with 8 labelled images a step."""
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


def build(config: ml_collections.ConfigDict) -> Experiment:
    """An experiment on one device: `training/test_step.py` has the tests of several."""
    return dataclasses.replace(recipe.build(config), devices=jax.devices()[:1])


# Overrides of `photos` by which it runs in seconds.
TINY_PHOTOS = [
    f"--config.{override}"
    for override in (
        "image_size=8", "augment.weak=weak_digits", "augment.strong=strong_digits",
        "model_args.filters=4", "model_args.scales=1", "batch_size=4", "uratio=1", "num_steps=4",
        "log_every=4", "eval_every=4", "ema_decay=0.5", "model_args.batch_norm_momentum=0.5",
    )
]  # fmt: skip
