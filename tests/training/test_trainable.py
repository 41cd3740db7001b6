import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from benchmarks import fine_tuning
from helpers.steps import run_steps
from helpers.tiny import build, tiny_config, tiny_vit
from ssljax import network, recipe
from ssljax.augment.ops import to_float
from ssljax.errors import UsageError
from ssljax.training import trainable
from ssljax.training.step import make_eval_step


def vit(kind, method="supervised", **model_args):
    config = tiny_vit(method, **model_args)
    config.trainable = kind
    config.augment.weak = "none"
    config.optimizer.weight_decay = 0.0
    return config


def sizes(tree):
    return sum(np.size(x) for x in jax.tree.leaves(tree))


@pytest.mark.parametrize(
    ("text", "expected"),
    [("all", ("all", 0)), ("head", ("head", 0)), ("last:2", ("last", 2)), ("lora:8", ("lora", 8))],
)
def test_what_is_trained_is_read(text, expected):
    assert trainable.parse(text) == expected


@pytest.mark.parametrize("text", ["", "none", "last", "last:0", "lora:-1", "lora:8.5", "head:1"])
def test_anything_else_is_refused(text):
    with pytest.raises(ValueError, match="allowed: all, head, last:<blocks>, lora:<rank>"):
        trainable.parse(text)


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("head", {"head"}),
        ("last:1", {"block_1", "norm", "head"}),
        ("lora:3", {"block_0", "block_1", "head"}),
    ],
)
def test_the_rest_stands_once_and_has_no_slot_and_no_average(kind, names):
    config = vit(kind)
    config.optimizer.name = "adamw"
    state = jax.eval_shape(build(config)._initialize, jax.random.PRNGKey(0))
    assert {*state.params} == {*state.ema} == names
    assert {*state.frozen} >= {"cls_token", "pos_embed", "patch_embed"}
    slots = [x for x in jax.tree.leaves(state.opt_state) if x.shape]
    assert sum(x.size for x in slots) == 2 * sum(x.size for x in jax.tree.leaves(state.params))


@pytest.mark.slow
def test_the_costs_of_each_choice_are_a_table():
    found = {
        kind: fine_tuning.experiment(kind, "vit_tiny", batch_size=2, uratio=1, side=32)
        for kind in fine_tuning.KINDS
    }
    rows = [fine_tuning.row(x) for x in found.values()]
    assert [cells[0] for cells in rows] == ["`all`", "`last:2`", "`lora:8`", "`head`"]
    assert rows[-1][1] == f"{192 * 10 + 10:,}"
    memory = [x.step_bytes for x in found.values()]
    assert memory[0] > memory[1] > memory[3]
    assert memory[0] > memory[2] > memory[3]
    states = [float(cells[2]) for cells in rows]
    assert states[0] == pytest.approx(4 * states[3], rel=0.05)  # weights, average, two moments


def test_updates_of_low_rank_are_of_attention_s_projections():
    state = build(vit("lora:3")).init_state()
    block = state.params["block_1"]
    assert {*block} == {"qkv", "proj"}
    shapes = jax.tree.map(lambda x: x.shape, block["qkv"])
    assert shapes == {"lora_a": {"kernel": (8, 3)}, "lora_b": {"kernel": (3, 24)}}
    # A is drawn as in torch.nn.Linear, uniform up to 1/√D; B starts at 0.
    drawn = np.concatenate(
        [np.ravel(state.params[b][k]["lora_a"]["kernel"])
         for b in ("block_0", "block_1") for k in ("qkv", "proj")]
    )  # fmt: skip
    assert 0.8 / np.sqrt(8) < np.abs(drawn).max() <= 1 / np.sqrt(8)
    assert len({*drawn.tolist()}) == len(drawn)
    np.testing.assert_array_equal(block["proj"]["lora_b"]["kernel"], 0)


def one_step(kind):
    """Returns states before and after a step of plain SGD, and the gradient of all weights."""
    config = vit(kind)
    config.optimizer.momentum = 0.0
    config.optimizer.schedule = "constant"
    experiment = recipe.build(config, max_devices=1, once=False)  # the step of images
    before = experiment.init_state()
    if kind.startswith("lora"):  # so that A has a gradient, too
        filled = jax.tree.map(lambda x: np.where(x == 0, 0.1, x).astype(x.dtype), before.params)
        before = before.replace(params=filled | {"head": before.params["head"]})
    seen = {}

    def loss(params, ema_params, apply, batch, noise, state, progress):
        jax.debug.callback(lambda *x: seen.update(batch=x), batch.labeled, batch.labels)
        return experiment.method.loss(params, ema_params, apply, batch, noise, state, progress)

    watched = dataclasses.replace(experiment, method=experiment.method._replace(loss=loss))
    after, _ = jax.jit(watched.single_step())(before, experiment.data())
    jax.effects_barrier()
    images, labels = seen["batch"]

    def xe(params):
        logits, _ = experiment.model.apply({"params": params}, images, train=False)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    full = network.merged(before.params, before.frozen)
    gradient = jax.jit(jax.grad(xe))(full)
    return before, after, gradient, config.optimizer.lr


def close(found, expected):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), found, expected
    )


@pytest.mark.slow
def test_a_step_that_trains_all():
    before, after, gradient, lr = one_step("all")
    close(after.params, jax.tree.map(lambda p, g: p - lr * g, before.params, gradient))
    assert after.frozen == ()


@pytest.mark.parametrize("kind", [pytest.param("head", marks=pytest.mark.slow), "last:1"])
def test_a_step_that_trains_a_part(kind):
    before, after, gradient, lr = one_step(kind)
    mine = {name: gradient[name] for name in before.params}
    close(after.params, jax.tree.map(lambda p, g: p - lr * g, before.params, mine))
    jax.tree.map(np.testing.assert_array_equal, after.frozen, before.frozen)


def test_a_step_that_trains_updates_of_low_rank():
    """By the chain rule: W + AB has the gradient G, so A has G·Bᵀ and B has Aᵀ·G."""
    before, after, gradient, lr = one_step("lora:3")
    for block in ("block_0", "block_1"):
        for layer in ("qkv", "proj"):
            a, b = (before.params[block][layer][f"lora_{x}"]["kernel"] for x in "ab")
            g = gradient[block][layer]["kernel"]
            found = after.params[block][layer]
            close(found["lora_a"]["kernel"], a - lr * g @ b.T)
            close(found["lora_b"]["kernel"], b - lr * a.T @ g)
    close(
        after.params["head"]["bias"], before.params["head"]["bias"] - lr * gradient["head"]["bias"]
    )
    jax.tree.map(np.testing.assert_array_equal, after.frozen, before.frozen)


@pytest.mark.slow
def test_frozen_weights_are_bit_identical_after_training_on_several_devices():
    config = vit("lora:2", "fixmatch", drop_path=0.3)
    experiment = build(config, 2)
    after, _ = run_steps(experiment, 2)
    before = experiment.init_state()
    jax.tree.map(np.testing.assert_array_equal, after.frozen, before.frozen)
    moved = jax.tree.map(lambda x, y: bool(np.any(x != y)), after.params, before.params)
    assert all(moved["block_1"]["qkv"]["lora_b"].values())


@pytest.mark.slow
def test_an_evaluation_is_of_the_merged_weights():
    experiment = build(vit("lora:3"))
    state = experiment.init_state()
    filled = jax.tree.map(lambda x: np.where(x == 0, 0.5, x).astype(x.dtype), state.ema)
    state = state.replace(ema=filled)
    images, labels = experiment.dataset.test_images[:8], experiment.dataset.test_labels[:8]
    step = jax.jit(make_eval_step(experiment.model))
    _, (_, confidence) = step(state.weights("ema"), images, labels, np.ones(8, np.float32))
    params = network.merged(state.ema, state.frozen)
    a, b = (filled["block_0"]["qkv"][f"lora_{x}"]["kernel"] for x in "ab")
    expected = state.frozen["block_0"]["qkv"]["kernel"] + a @ b
    np.testing.assert_allclose(params["block_0"]["qkv"]["kernel"], expected, rtol=1e-6)
    logits, _ = experiment.model.apply(
        {"params": params}, to_float(jnp.asarray(images)), train=False
    )
    np.testing.assert_allclose(confidence, np.max(jax.nn.softmax(logits), axis=-1), rtol=1e-5)


def test_the_head_alone_is_trained_as_in_evaluation():
    """BatchNorm uses its learned statistics, which are unchanged; there is no dropout."""
    config = tiny_config("fixmatch")
    config.trainable = "head"
    config.optimizer.name = "sgd"
    experiment = build(config)
    before = experiment.init_state()
    after, _ = run_steps(experiment, 1)
    assert {*after.params} == {"Dense_0"}
    jax.tree.map(np.testing.assert_array_equal, after.batch_stats, before.batch_stats)
    jax.tree.map(np.testing.assert_array_equal, after.frozen, before.frozen)
    assert np.any(after.params["Dense_0"]["kernel"] != before.params["Dense_0"]["kernel"])


@pytest.mark.parametrize(
    ("model", "kind", "message"),
    [
        ("wide_resnet", "last:2", "config.trainable is 'last:2'; allowed for config.model 'wide_"),
        (
            "wide_resnet",
            "lora:2",
            "config: trainable is 'lora:2'; allowed for a network without at",
        ),
        ("convnet", "head", "config: trainable is 'head'; allowed for a network without 'Dense_0'"),
        ("vit_tiny", "last:3", "config: trainable is 'last:3'; allowed: up to last:2"),
        ("vit_tiny", "some", "config: trainable is 'some'; allowed: all, head"),
    ],
)
def test_a_network_without_the_parts_is_refused(model, kind, message):
    config = tiny_vit("supervised") if model == "vit_tiny" else tiny_config("supervised")
    if model == "convnet":
        config.model, config.model_args = model, dict(filters=4, scales=1)
    config.trainable = kind
    with pytest.raises(UsageError, match=message):
        recipe.build(config, max_devices=1)


def test_remat_is_of_networks_that_have_it(untraced):
    config = tiny_vit("supervised")
    config.remat = True
    assert recipe.build(config, max_devices=1).model.remat
    config = tiny_config("supervised")
    config.remat = True
    assert recipe.build(config, max_devices=1).model.remat
    config.model, config.model_args = "convnet", dict(filters=4, scales=1)
    with pytest.raises(UsageError, match="config.remat is True; allowed for config.model 'convnet"):
        recipe.build(config, max_devices=1)
