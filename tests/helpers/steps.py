"""Runs steps of an experiment, outside the loop."""

import functools

import jax
import numpy as np

from helpers.tiny import build, tiny_config
from ssljax.training import parallel


def shared(method, devices):
    """Returns a tiny experiment with SGD, the same at each call.

    Adam divides by tiny second moments, which amplifies rounding.
    """
    config = tiny_config(method)
    config.optimizer.name = "sgd"
    if method == "remixmatch":
        config.method_args.strong_views = 1  # reduces the step's compilation by a third
    return build(config, devices)


def compiled(experiment, **options):
    """Returns the experiment's steps, compiled once per set of `parallel.compile_steps` options."""
    if not options:
        return experiment.compile_steps()
    return _compiled(experiment.train_step, tuple(experiment.devices), **options)


@functools.cache
def _compiled(train_step, devices, **options):
    return parallel.compile_steps(train_step, devices, **options)


def run_steps(experiment, steps, *, data=None, **options):
    """Returns state and metric sums on the host after `steps` steps of a recipe."""
    metric_sums = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), experiment.shapes["window"])
    state, metric_sums, data = (
        parallel.replicate(x, experiment.devices)
        for x in (experiment.init_state(), metric_sums, data or experiment.data())
    )
    run = compiled(experiment, **options)
    after = run(state, metric_sums, data, steps)
    for x in jax.tree.leaves(jax.device_get(after)):
        np.testing.assert_array_equal(x, np.broadcast_to(x[:1], x.shape))  # all devices agree
    return parallel.fetch(after)


def largest_difference(a, b):
    """Returns the largest difference of two trees, relative to the largest entry of each leaf."""
    return max(
        np.max(np.abs(x - y)) / max(np.max(np.abs(x)), 1e-3)
        for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )


def weights(state):
    return state.params, state.batch_stats, state.ema
