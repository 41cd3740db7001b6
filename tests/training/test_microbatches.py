"""A batch in parts: what one pass over all of it computes, but for BatchNorm."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers.steps import largest_difference, run_steps, weights
from helpers.tiny import build, tiny_config, tiny_vit
from ssljax import recipe
from ssljax.errors import UsageError
from ssljax.methods.method import Aux
from ssljax.training.microbatches import accumulated


def in_parts(config, parts, **changes):
    config = config.copy_and_resolve_references()
    config.microbatches = parts
    config.update(changes)
    return config


@pytest.mark.slow
@pytest.mark.parametrize("devices", [1, 2])
def test_two_microbatches_are_one_for_a_network_without_batch_norm(devices):
    config = tiny_vit("fixmatch", drop_path=0.5)  # what is dropped is an image's own
    config.method_args.threshold = 0.1
    (one, logs), (two, other_logs) = (
        run_steps(build(in_parts(config, parts), devices), 2) for parts in (1, 2)
    )
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6),
        weights(one),
        weights(two),
    )
    assert largest_difference(one.params, build(config).init_state().params) > 1e-3
    assert logs.keys() == other_logs.keys()
    for name, sums in logs.items():
        np.testing.assert_allclose(sums.total, other_logs[name].total, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_batch_norm_takes_a_microbatch_for_a_device_of_its_own():
    config = tiny_config("fixmatch")
    config.optimizer.name = "sgd"
    config.sync_bn = False
    two_devices, _ = run_steps(build(config, 2), 2)
    two_parts, _ = run_steps(build(in_parts(config, 2), 1), 2)
    whole, _ = run_steps(build(config, 1), 2)
    assert largest_difference(weights(two_devices), weights(two_parts)) < 1e-5
    assert largest_difference(whole.batch_stats, two_parts.batch_stats) > 1e-4


@pytest.mark.parametrize("looped", [True, False])
def test_means_and_guesses_by_hand(looped):
    def gradient(part, x, y):
        loss = jnp.mean(x) + part
        aux = Aux({"mean": jnp.mean(y)}, (), {"log": jnp.max(x)}, x[:, None], None)
        return (loss, aux), {"w": jnp.sum(x)}

    x, y = jnp.arange(6.0), jnp.array([0.0, 0, 3, 3, 9, 9])
    step = jax.jit(lambda x, y: accumulated(gradient, (x, y), 3, looped=looped))
    (loss, aux), grads = step(x, y)
    assert loss == pytest.approx(2.5 + 1)
    assert aux.logs["log"] == pytest.approx((1 + 3 + 5) / 3)
    assert aux.batch_stats["mean"] == 4
    assert grads["w"] == pytest.approx(15 / 3)
    np.testing.assert_array_equal(aux.guess[:, 0], x)
    assert aux.mask is None
    assert ("while" in str(jax.make_jaxpr(step)(x, y)) + step.lower(x, y).as_text()) == looped


def test_a_state_cannot_be_accumulated():
    def gradient(part, x):
        return (jnp.mean(x), Aux((), jnp.zeros(1), {})), x

    with pytest.raises(ValueError, match="the loss returns a state; allowed with several micro"):
        accumulated(gradient, (jnp.zeros(4),), 2, looped=False)


@pytest.mark.parametrize(
    ("method", "parts", "message"),
    [
        ("mixmatch", 2, "config.microbatches is 2; allowed for config.method 'mixmatch': 1, as"),
        ("self_training", 2, "allowed for config.method 'self_training': 1, as its loss"),
        ("fixmatch", 3, "is 3; allowed: what divides the 8 labelled images of each device"),
        ("fixmatch", 0, "config.microbatches is 0; allowed: from 1"),
    ],
)
def test_what_cannot_be_in_parts_is_refused(method, parts, message, untraced):
    with pytest.raises(UsageError, match=message):
        recipe.build(in_parts(tiny_config(method), parts), max_devices=1)


def test_a_part_alone_is_held():
    config = tiny_config("supervised")
    config.batch_size, config.model_args.filters = 64, 16
    whole, parts = (build(in_parts(config, n)).step_bytes for n in (1, 8))
    assert parts < whole / 3
