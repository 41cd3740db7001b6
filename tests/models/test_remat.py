"""Blocks that are computed again for the gradient: the same numbers, with less to keep."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssljax.models.resnet import ResNet
from ssljax.models.wide_resnet import WideResNet
from ssljax.training import step_memory

IMAGES = jnp.asarray(np.random.RandomState(0).uniform(-1, 1, (8, 16, 16, 3)), jnp.float32)
MODELS = {
    "wide_resnet": lambda **options: WideResNet(3, filters=4, repeat=2, scales=2, **options),
    "basic": lambda **options: ResNet(3, blocks=(1, 2), bottleneck=False, **options),
    "bottleneck": lambda **options: ResNet(3, blocks=(2, 1), **options),
}


def loss_of(model, batch_stats):
    def loss(params):
        variables = {"params": params, "batch_stats": batch_stats}
        (logits, _), after = model.apply(variables, IMAGES, train=True, mutable=["batch_stats"])
        return jnp.mean(logits**2), after["batch_stats"]

    return loss


@pytest.mark.parametrize(
    "name",
    [
        "wide_resnet",
        pytest.param("basic", marks=pytest.mark.slow),
        pytest.param("bottleneck", marks=pytest.mark.slow),
    ],
)
def test_the_loss_and_the_statistics_are_the_same_bit_for_bit(name):
    plain, again = MODELS[name](), MODELS[name](remat=True)
    variables, renamed = (
        jax.jit(lambda m=m: m.init(jax.random.PRNGKey(0), IMAGES, train=False))()
        for m in (plain, again)
    )
    jax.tree.map(np.testing.assert_array_equal, variables, renamed)  # of the same names, too
    params, batch_stats = variables["params"], variables["batch_stats"]
    (first, ours), (second, theirs) = (
        jax.jit(jax.value_and_grad(loss_of(m, batch_stats), has_aux=True))(params)
        for m in (plain, again)
    )
    jax.tree.map(np.testing.assert_array_equal, first, second)
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), first[1], batch_stats)
    assert min(jax.tree.leaves(moved)) > 0
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), ours, theirs)


def test_less_is_kept():
    def deep(**options):
        return WideResNet(3, filters=4, repeat=8, scales=2, **options)

    def held(model):
        variables = jax.eval_shape(lambda: model.init(jax.random.PRNGKey(0), IMAGES, train=False))
        batch_stats = jax.tree.map(lambda x: jnp.ones(x.shape), variables["batch_stats"])
        gradient = jax.grad(loss_of(model, batch_stats), has_aux=True)
        program = jax.make_jaxpr(gradient)(variables["params"]).jaxpr
        return step_memory.estimate(program), str(program).count("remat2[")

    (most, none), (less, blocks) = held(deep()), held(deep(remat=True))
    assert less < 0.8 * most
    assert (none, blocks) == (0, 16)
