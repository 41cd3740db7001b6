"""Checks that the parts of a run fit together and fit in memory, before anything is compiled."""

import math

import jax

from ssljax.checks import prefix_errors
from ssljax.errors import UsageError
from ssljax.experiment import Experiment
from ssljax.training import devices


def require_trainable(experiment: Experiment) -> None:
    """Checks all that follows, the cheapest first.

    Raises:
      UsageError: the parts do not fit together, or they do not fit in memory.
    """
    require_adjustable(experiment)
    require_divisible(experiment)
    require_room(experiment)
    check_batch_stats(experiment)


def require_adjustable(experiment: Experiment) -> None:
    """Refuses logit adjustment where a class has no labels, or the method knows nothing of it."""
    given = f"config.logit_adjustment is {experiment.logit_adjustment}"
    if experiment.logit_adjustment and not experiment.method.adjustable:
        raise UsageError(
            f"{given}; allowed for config.method {experiment.config['method']!r}: 0, as its "
            "labelled loss is not of Batch.adjusted (Method.adjustable)"
        )
    with prefix_errors(given):
        experiment.adjustment  # noqa: B018


def require_divisible(experiment: Experiment) -> None:
    """Refuses microbatches if the method needs the whole batch, or if they would not be equal."""
    parts, share = experiment.microbatches, experiment.batch_size // len(experiment.devices)
    given = f"config.microbatches is {parts}"
    generations = experiment.method.generations
    has_targets = generations is not None and generations.targets is not None
    if parts > 1 and (experiment.method.joint or has_targets):
        raise UsageError(
            f"{given}; allowed for config.method {experiment.config['method']!r}: 1, as its loss "
            "combines the images of the whole batch, or has a state"
        )
    if share % parts:
        raise UsageError(
            f"{given}; allowed: what divides the {share} labelled images of each device"
        )


def require_room(experiment: Experiment) -> None:
    """Refuses data, steps and models that the devices cannot hold, before anything is compiled."""
    devices.require_room("the data", experiment.data_bytes, experiment.devices)
    count, shape = experiment.images_per_step, experiment.dataset.image_shape
    devices.require_room(
        f"config.batch_size is {experiment.batch_size} and config.uratio {experiment.uratio}: the "
        f"{count:,} images of a step",
        4 * count * math.prod(shape) // len(experiment.devices),  # float32, and nothing else yet
        experiment.devices,
    )
    method = experiment.config["method"]
    # Sizes that do not fit together show while the step is traced.
    with prefix_errors(f"config.method {method!r}" if "." in method else "config"):
        state_bytes = experiment.state_bytes
    devices.require_room(
        f"config.model is {experiment.config['model']}: the state of training",
        state_bytes,
        experiment.devices,
    )
    devices.require_step(
        experiment.step_bytes, experiment.data_bytes, experiment.batch_size, experiment.devices
    )


def check_batch_stats(experiment: Experiment) -> None:
    """Refuses a network that cannot share its BatchNorm statistics between devices."""
    several = experiment.config["sync_bn"] and len(experiment.devices) > 1
    has_statistics = bool(jax.tree.leaves(experiment.shapes["state"].batch_stats))
    if several and has_statistics and not hasattr(experiment.model, "axis_name"):
        name = experiment.config["model"]
        raise UsageError(
            f"config.sync_bn is True for {len(experiment.devices)} devices; allowed for "
            f"config.model {name!r}, which has batch_stats and no argument axis_name: False"
        )
