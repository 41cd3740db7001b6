import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssljax.training import step_memory

X = jnp.zeros(1000)  # 4,000 bytes


def held(function):
    """Returns the bytes held at once, without the allowance for XLA's additions."""
    return step_memory.estimate(jax.make_jaxpr(function)(X).jaxpr) / step_memory._FACTOR


@pytest.mark.parametrize(
    ("function", "arrays"),
    [
        (lambda x: jnp.sort(x), 1),
        (lambda x: jnp.sort(jnp.sort(x)), 2),  # one is read, the other one written
        (lambda x: jnp.sort(jnp.sort(jnp.sort(x))), 2),  # the first one has been freed by then
        (lambda x: jnp.sort(x * 2 + 1), 1),  # computed inside the sort
        (lambda x: [y := jnp.sort(x), jnp.cumsum(y), jnp.cumsum(-y)], 3),
        (jax.jit(lambda x: jnp.sort(jnp.sort(x))), 2),
        (lambda x: jax.lax.fori_loop(0, 3, lambda _, y: jnp.sort(jnp.sort(y)), x), 2),
    ],
)
def test_results_are_held_while_they_are_needed(function, arrays):
    assert held(function) == pytest.approx(4000 * arrays, rel=0.01, abs=50)


def test_a_gradient_holds_what_the_forward_pass_made():
    def loss(x, layers):
        for _ in range(layers):
            x = jnp.sin(jnp.cumsum(x))
        return jnp.sum(x)

    few, many = (held(lambda x, n=n: jax.grad(loss)(x, n)) for n in (2, 12))
    assert many - few == pytest.approx(10 * 4000)


@pytest.mark.parametrize(("platform", "times"), [("tpu", 9), ("cpu", 2), ("gpu", 2)])
def test_of_branches_for_platforms_one_is_run(platform, times):
    def function(x):
        branches = [lambda x, n=n: jnp.sort(jnp.tile(x, n))[:1000] for n in (9, 2)]
        return jax.lax.platform_dependent(x, tpu=branches[0], default=branches[1])

    estimate = step_memory.estimate(jax.make_jaxpr(function)(X).jaxpr, platform)
    assert times * 4000 <= estimate / step_memory._FACTOR <= (2 * times + 1) * 4000


def test_keys_and_numbers_do_no_harm():
    assert step_memory.estimate(jax.make_jaxpr(lambda s: jax.random.key(s))(np.int32(1)).jaxpr) >= 0
