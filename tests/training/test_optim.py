"""Tests optimizers and schedules against hand-computed numbers and TensorFlow's update rules."""

import math
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ssljax.training.optim import kernels, make_optimizer, make_schedule, moving_average

PARAMS = {
    "Conv_0": {"kernel": [[0.5, -1.5], [2.0, 0.25]], "bias": [0.75, -0.5]},
    "BatchNorm_0": {"scale": [1.0, 1.25], "bias": [-0.25, 0.5]},
    "Dense_0": {"kernel": [1.5, -2.0], "bias": [1.0]},
}
IS_KERNEL = {
    "Conv_0": {"kernel": True, "bias": False},
    "BatchNorm_0": {"scale": False, "bias": False},
    "Dense_0": {"kernel": True, "bias": False},
}


def floats(tree, dtype):
    return jax.tree.map(lambda x: np.array(x, dtype), tree, is_leaf=lambda x: isinstance(x, list))


def gradients(step):
    """Returns arbitrary gradients that differ per step and do not depend on the parameters."""
    random = np.random.default_rng(step)
    return jax.tree.map(lambda x: random.normal(size=x.shape), floats(PARAMS, np.float64))


def trained(optimizer, steps):
    params = floats(PARAMS, np.float32)
    state = optimizer.init(params)
    for step in range(steps):
        grads = floats(gradients(step), np.float32)
        updates, state = optimizer.update(grads, state, params)
        params = optax.apply_updates(params, updates)
    return params


def tensorflow_adam(rates, *, weight_decay):
    """`AdamOptimizer(lr)`, and after each step kernel <- kernel · (1 - wd · lr)."""

    def run(value, is_kernel, *grads):
        m = v = 0.0
        for t, (lr, g) in enumerate(zip(rates, grads, strict=True), start=1):
            m = 0.9 * m + 0.1 * g
            v = 0.999 * v + 0.001 * g**2
            value = value - lr * math.sqrt(1 - 0.999**t) / (1 - 0.9**t) * m / (np.sqrt(v) + 1e-8)
            if is_kernel:
                value = value * (1 - weight_decay * lr)
        return value

    steps = [gradients(step) for step in range(len(rates))]
    return jax.tree.map(run, floats(PARAMS, np.float64), IS_KERNEL, *steps)


def tensorflow_nesterov(rates, *, weight_decay, momentum):
    """`MomentumOptimizer(lr, momentum, use_nesterov=True)` on loss + wd · ½ Σ kernel²."""

    def run(value, is_kernel, *grads):
        accum = 0.0
        for lr, loss_gradient in zip(rates, grads, strict=True):
            g = loss_gradient + (weight_decay * value if is_kernel else 0)
            accum = momentum * accum + g
            value = value - lr * (g + momentum * accum)
        return value

    steps = [gradients(step) for step in range(len(rates))]
    return jax.tree.map(run, floats(PARAMS, np.float64), IS_KERNEL, *steps)


def torch_adamw(rates, *, weight_decay):
    """`torch.optim.AdamW`: the old kernels are decayed, then Adam's step is applied."""

    def run(value, is_kernel, *grads):
        m = v = 0.0
        for t, (lr, g) in enumerate(zip(rates, grads, strict=True), start=1):
            value = value * (1 - lr * weight_decay * is_kernel)
            m = 0.9 * m + 0.1 * g
            v = 0.999 * v + 0.001 * g**2
            step = m / (1 - 0.9**t) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
            value = value - lr * step
        return value

    steps = [gradients(step) for step in range(len(rates))]
    return jax.tree.map(run, floats(PARAMS, np.float64), IS_KERNEL, *steps)


def assert_close(actual, desired):
    def close(a, d):
        # In float32, 1 - 0.999^t has only five digits at the first steps.
        np.testing.assert_allclose(a, d, rtol=1e-5, atol=1e-5)

    jax.tree.map(close, actual, desired)


# A large decay and a rate that falls at each step: small values would hide a wrong order.
RATES = [0.3 * math.cos(7 * math.pi * k / (16 * 4)) for k in range(4)]


@pytest.mark.parametrize("steps", [1, 3])
def test_adam_steps_are_tensorflows_and_kernels_shrink_after_them(steps):
    schedule = make_schedule("cosine", lr=0.3, steps=4)
    optimizer = make_optimizer("adam", schedule, weight_decay=0.5)
    expected = tensorflow_adam(RATES[:steps], weight_decay=0.5)
    assert_close(trained(optimizer, steps), expected)


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("momentum", [0.9, 0.5])
def test_sgd_steps_are_tensorflows_nesterov_momentum_on_the_decayed_loss(steps, momentum):
    schedule = make_schedule("cosine", lr=0.3, steps=4)
    optimizer = make_optimizer("sgd", schedule, weight_decay=0.5, momentum=momentum)
    expected = tensorflow_nesterov(RATES[:steps], weight_decay=0.5, momentum=momentum)
    assert_close(trained(optimizer, steps), expected)


def test_adamw_steps_are_torch_s():
    schedule = make_schedule("cosine", lr=0.3, steps=4)
    optimizer = make_optimizer("adamw", schedule, weight_decay=0.5)
    assert_close(trained(optimizer, 3), torch_adamw(RATES[:3], weight_decay=0.5))


def test_positions_and_tokens_do_not_shrink_and_updates_of_low_rank_do():
    params = {
        "cls_token": np.ones((1, 1, 4)),
        "pos_embed": np.ones((1, 5, 4)),
        "block_0": {
            "ls1": np.ones(4),
            "norm1": {"scale": np.ones(4)},
            "qkv": {"lora_a": {"kernel": np.ones((4, 2))}, "lora_b": {"kernel": np.ones((2, 12))}},
        },
    }
    assert kernels(params) == {
        "cls_token": False,
        "pos_embed": False,
        "block_0": {
            "ls1": False,
            "norm1": {"scale": False},
            "qkv": {"lora_a": {"kernel": True}, "lora_b": {"kernel": True}},
        },
    }


GROUPS = {"Conv_0": 0, "BatchNorm_0": 1, "Dense_0": 2, "heads": 0}


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_each_group_learns_at_a_rate_of_its_own(name):
    def at_rate(lr, **options):
        schedule = make_schedule("constant", lr=lr, steps=4)
        return trained(make_optimizer(name, schedule, weight_decay=0.5, **options), 3)

    found = at_rate(0.02, layer_decay=0.5, group=GROUPS.get, groups=3)
    for part, group in GROUPS.items():
        if part != "heads":
            # MixMatch's Adam decays the updated kernels, so that the rate counts twice.
            expected = at_rate(0.02 * 0.5 ** (2 - group))[part]
            close = 1e-3 if name == "adam" else 1e-6
            jax.tree.map(
                lambda a, b, close=close: np.testing.assert_allclose(a, b, rtol=close, atol=close),
                found[part],
                expected,
            )


def test_the_heads_of_methods_learn_as_the_last_group():
    optimizer = make_optimizer(
        "sgd", optax.constant_schedule(1.0), weight_decay=0.0, momentum=0.0, layer_decay=0.1,
        group=GROUPS.get, groups=3,
    )  # fmt: skip
    params = {"heads": {"x": jnp.ones(2)}, "Conv_0": {"bias": jnp.ones(2)}}
    updates, _ = optimizer.update(params, optimizer.init(params), params)
    np.testing.assert_allclose(updates["heads"]["x"], -1, rtol=1e-6)
    np.testing.assert_allclose(updates["Conv_0"]["bias"], -0.01, rtol=1e-6)


def test_the_gradient_of_all_weights_together_is_cut_to_a_length():
    optimizer = make_optimizer(
        "sgd", optax.constant_schedule(1.0), weight_decay=0.0, momentum=0.0, clip_norm=2.0
    )
    params = {"a": {"bias": jnp.zeros(1)}, "b": {"bias": jnp.zeros(1)}}
    for length, found in ((5.0, 2.0), (1.0, 1.0)):
        grads = {"a": {"bias": jnp.array([0.6 * length])}, "b": {"bias": jnp.array([0.8 * length])}}
        updates, _ = optimizer.update(grads, optimizer.init(params), params)
        np.testing.assert_allclose(updates["a"]["bias"], -0.6 * found, rtol=1e-6)
        np.testing.assert_allclose(updates["b"]["bias"], -0.8 * found, rtol=1e-6)


def test_what_is_not_asked_for_takes_no_place_in_the_state():
    """Checkpoints of older versions do not have it."""
    params = floats(PARAMS, np.float32)
    plain, full = (
        make_optimizer("sgd", optax.constant_schedule(0.1), weight_decay=0.1, **options)
        for options in ({}, {"clip_norm": 1.0, "layer_decay": 0.5, "group": GROUPS.get})
    )
    assert len(plain.init(params)) == 2
    assert jax.tree.structure(jax.tree.leaves(plain.init(params))) == jax.tree.structure(
        jax.tree.leaves(full.init(params))
    )


def test_momentum_is_0_9_where_none_is_given():
    schedule = make_schedule("constant", lr=0.1, steps=4)
    given = trained(make_optimizer("sgd", schedule, weight_decay=0.0, momentum=0.9), 3)
    assert_close(trained(make_optimizer("sgd", schedule, weight_decay=0.0), 3), given)


@pytest.mark.parametrize("name", ["adam", "sgd"])
def test_only_kernels_are_decayed(name):
    schedule = make_schedule("constant", lr=0.1, steps=4)
    with_decay, without = (
        trained(make_optimizer(name, schedule, weight_decay=decay), 2) for decay in (0.5, 0.0)
    )
    changed = jax.tree.map(lambda a, b: bool(np.any(a != b)), with_decay, without)
    assert changed == IS_KERNEL == kernels(with_decay)


@pytest.mark.parametrize("name", ["adam", "sgd"])
def test_optimizers_give_the_same_under_jit(name):
    optimizer = make_optimizer(name, make_schedule("cosine", lr=0.3, steps=4), weight_decay=0.5)
    jitted = optax.GradientTransformation(optimizer.init, jax.jit(optimizer.update))
    assert_close(trained(jitted, 3), trained(optimizer, 3))


def test_cosine_falls_from_lr_by_seven_sixteenths_of_pi_and_stays_there():
    schedule = make_schedule("cosine", lr=0.03, steps=1 << 20)
    # cos 0, cos(7π/64), cos(7π/32), cos(7π/16), by hand to six digits.
    steps = [0, 1 << 18, 1 << 19, 1 << 20]
    hand = [0.03 * x for x in (1.0, 0.941544, 0.773010, 0.195090)]
    np.testing.assert_allclose([schedule(k) for k in steps], hand, rtol=2e-6)
    # After the end, where the cosine would fall below zero and rise again.
    late = [schedule(k) for k in (1_100_000, 1 << 21, 1 << 22)]
    np.testing.assert_allclose(late, hand[-1], rtol=2e-6)


def test_cosine_can_have_another_level():
    schedule = make_schedule("cosine", lr=0.03, steps=100, cosine_level=1.0)
    np.testing.assert_allclose(schedule(100), 0.03 * np.cos(np.pi / 16), rtol=1e-6)
    with pytest.raises(ValueError, match="cosine_level is 9.0; allowed: from 0 to 8"):
        make_schedule("cosine", lr=0.03, steps=100, cosine_level=9.0)


def test_cosine_falls_at_every_step():
    schedule = make_schedule("cosine", lr=0.03, steps=100)
    rates = [float(schedule(jnp.int32(k))) for k in range(101)]
    np.testing.assert_allclose(
        rates, [0.03 * math.cos(7 * math.pi * k / 1600) for k in range(101)], rtol=2e-6
    )
    assert all(later < rate for rate, later in pairwise(rates))


def test_a_warm_up_rises_to_the_rate_and_the_schedule_begins_after_it():
    """USB's `get_cosine_schedule_with_warmup`, whose cosine covers the remaining steps."""
    schedule = make_schedule("cosine", lr=0.03, steps=120, warmup_steps=20)
    expected = [0.03 * k / 20 for k in range(20)]
    expected += [0.03 * math.cos(7 * math.pi / 16 * (k - 20) / 100) for k in range(20, 121)]
    rates = [float(schedule(jnp.int32(k))) for k in range(121)]
    np.testing.assert_allclose(rates, expected, rtol=2e-6)


def test_the_usual_cosine_ends_at_zero():
    schedule = make_schedule("cosine_to_zero", lr=0.2, steps=100)
    steps = [0, 25, 50, 100, 200]
    hand = [0.2, 0.2 * (0.5 + 0.5 * math.sqrt(0.5)), 0.1, 0.0, 0.0]
    np.testing.assert_allclose([schedule(k) for k in steps], hand, atol=1e-8)


@pytest.mark.parametrize(
    ("name", "steps", "message"),
    [
        ("cosine", 100, "warmup_steps is 100; allowed for schedule 'cosine': below 100"),
        ("staircase", 5, "warmup_steps is 5; allowed for schedule 'staircase': 0, and warmup_epo"),
    ],
)
def test_a_warm_up_that_does_not_fit_is_refused(name, steps, message):
    with pytest.raises(ValueError, match=message):
        make_schedule(name, lr=0.1, steps=100, warmup_steps=steps)


def test_constant_is_constant():
    schedule = make_schedule("constant", lr=0.002, steps=100)
    assert [schedule(k) for k in (0, 50, 100, 1000)] == [0.002] * 4


def test_moving_average_weighs_old_and_new_without_debiasing():
    average = {"a": jnp.array([1.0, -2.0]), "b": jnp.array(0.0)}
    value = {"a": jnp.array([2.0, 2.0]), "b": jnp.array(8.0)}
    result = moving_average(average, value, 0.75)
    np.testing.assert_allclose(result["a"], [1.25, -1.0], rtol=1e-6)
    np.testing.assert_allclose(result["b"], 2.0, rtol=1e-6)
    slow = moving_average(average, value, 0.999)
    np.testing.assert_allclose(slow["a"], [1.001, -1.996], rtol=1e-6)


def test_moving_average_keeps_all_or_nothing_at_the_ends():
    average, value = {"a": jnp.array([1.0, -2.0])}, {"a": jnp.array([2.0, 3.0])}
    np.testing.assert_array_equal(moving_average(average, value, 1.0)["a"], average["a"])
    np.testing.assert_array_equal(moving_average(average, value, 0.0)["a"], value["a"])


def test_unknown_names_are_errors_that_list_the_known_ones():
    with pytest.raises(ValueError, match=r"'linear' does not exist; there are: constant, cosine"):
        make_schedule("linear", lr=0.1, steps=10)
    with pytest.raises(
        ValueError, match=r"'rmsprop' does not exist; there are: adam, adamw, keras_sgd, sgd"
    ):
        make_optimizer("rmsprop", optax.constant_schedule(0.1), weight_decay=0.0)
