"""Limits of the runner of bundles for NPUs: experiments that it cannot train are refused."""

from typing import Any

import jax

from ssljax.data.datasets import Dataset
from ssljax.errors import UsageError
from ssljax.experiment import Experiment
from ssljax.overrides import flatten

# Weak views that the runner supports: probability of a flip, pixels of shift, filling of borders.
WEAK: dict[str, dict[str, Any]] = {
    "none": {"flip": 0.0, "pad": 0, "mode": "reflect"},
    "flip": {"flip": 0.5, "pad": 0, "mode": "reflect"},
    "weak_cifar": {"flip": 0.5, "pad": 4, "mode": "reflect"},
    "weak_svhn": {"flip": 0.0, "pad": 4, "mode": "reflect"},
    "weak_stl10": {"flip": 0.5, "pad": 12, "mode": "reflect"},
    "weak_digits": {"flip": 0.0, "pad": 1, "mode": "constant"},
}
# Config values that the runner supports, with the defaults first.
_KNOBS: dict[str, tuple[Any, ...]] = {
    "trainable": ("all",),
    "microbatches": (1,),
    "optimizer.name": ("adam", "sgd", "keras_sgd"),
    "optimizer.schedule": ("constant", "cosine", "staircase"),
    "optimizer.cosine_level": (7.0,),
    "optimizer.warmup_steps": (0,),
    "optimizer.clip_norm": (0.0,),
    "optimizer.layer_decay": (1.0,),
}


def require_trainable(experiment: Experiment) -> None:
    """Refuses an experiment with a part that the runner does not support; the message names it."""
    config, method = experiment.config, experiment.method
    if not isinstance(experiment.dataset, Dataset):
        raise UsageError(
            f"config.dataset {config['dataset']} is streamed; --format=npu_bundle holds all images"
        )
    for part, has in (
        ("further heads", bool(method.heads)),
        ("a state", bool(jax.tree.leaves(method.init(experiment.sizes)))),
        ("further views of labelled images", bool(method.more_labeled_views)),
        ("generations", method.generations is not None),
    ):
        if has:
            raise UsageError(
                f"config.method {config['method']!r} has {part}, which --format=npu_bundle cannot "
                "train; mixmatch, fixmatch, supervised and others without can be"
            )
    if config["augment"]["weak"] not in WEAK:
        raise UsageError(
            f"config.augment.weak {config['augment']['weak']!r} is not known to the runner; "
            f"allowed: {', '.join(WEAK)}"
        )
    if "shake" in config["model"]:
        raise UsageError(
            f"config.model {config['model']!r} draws random numbers, which graphs of "
            "--format=npu_bundle cannot; the other models can be trained"
        )
    if getattr(experiment.model, "drop_path", 0) or getattr(experiment.model, "dropout", 0):
        raise UsageError(
            f"config.model {config['model']!r} drops something in training, which graphs of "
            "--format=npu_bundle cannot; allowed: drop_path and dropout 0"
        )
    knobs = flatten(config)
    for knob, allowed in _KNOBS.items():
        if knobs.get(knob, allowed[0]) not in allowed:
            raise UsageError(
                f"config.{knob} is {knobs[knob]!r}; allowed for --format=npu_bundle: "
                f"{', '.join(map(str, allowed))}"
            )
    if config["bfloat16"]:
        raise UsageError("config.bfloat16 is True; --precision of the runner decides instead")
