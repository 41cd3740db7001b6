"""Tests each rule of the lowering against JAX on random numbers, and operations without a rule."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorflow as tf
from jax import lax

from helpers.graphs import require_1_15, run
from helpers.tf1_cases import (
    CASES,
    T4,
    M,
    V,
    conv,
    made,
    max_pool,
    prepared,
    shapes_of,
)
from ssljax.errors import UsageError
from ssljax.export import tf1_elementwise, tf1_graph, tf1_rules


@pytest.fixture(autouse=True)
def ranks_may_differ():
    """Allows rank promotion, as in user models; the cases use it."""
    with jax.numpy_rank_promotion("allow"):
        yield


@pytest.mark.parametrize("name", CASES)
def test_a_primitive_computes_what_jax_computes(name):
    function, arrays = prepared(name)
    expected = np.asarray(function(arrays)["y"])
    graph_def = tf1_graph.lower(function, shapes_of(arrays))
    require_1_15(graph_def)
    (found,) = run(graph_def, arrays)
    assert found.dtype == expected.dtype
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("name", CASES)
def test_in_float64_it_is_exact_to_the_last_digits(name):
    with jax.enable_x64(True):
        function, arrays = prepared(name, np.float64)
        expected = np.asarray(function(arrays)["y"])
        (found,) = run(tf1_graph.lower(function, shapes_of(arrays)), arrays)
    assert found.dtype == expected.dtype
    np.testing.assert_allclose(found, expected, rtol=1e-13, atol=1e-13)


def test_every_rule_has_a_case():
    def names(jaxpr):
        for eqn in jaxpr.eqns:
            yield eqn.primitive.name
            if eqn.primitive.name in tf1_graph._CUSTOM_CALLS:
                yield tf1_graph._custom_name(eqn)
            for value in eqn.params.values():
                inner = getattr(value, "jaxpr", value)
                if hasattr(inner, "eqns"):
                    yield from names(inner)

    seen = set()
    for case in CASES:
        function, arrays = prepared(case)
        seen |= set(names(jax.make_jaxpr(function)(arrays).jaxpr))
    rules = (
        tf1_elementwise.ELEMENTWISE.keys() | tf1_graph._OF_WHOLE.keys() | tf1_rules.CUSTOM.keys()
    )
    # "gradient of a loss" contains the last one from jax 0.12 on.
    newer = set() if hasattr(jax.lax, "one_minus_square_p") else {"one_minus_square"}
    assert rules - seen == ({"add_any"} - seen) | newer


def test_a_symbolic_batch_takes_any_number_of_images():
    b, *_ = jax.export.symbolic_shape("b")

    def function(args):
        x = args["x"]
        rows = jnp.broadcast_to(jnp.arange(4.0), (x.shape[0], 4))  # as long as the batch
        chosen = jnp.where(jnp.arange(4) > 1, x[:, ::2] @ jnp.ones((4, 4)), 2.0)
        return {"y": jnp.concatenate([rows, chosen, x.reshape(x.shape[0], 2, 4).sum(1)], axis=1)}

    graph_def = tf1_graph.lower(function, {"x": jax.ShapeDtypeStruct((b, 8), jnp.float32)})
    require_1_15(graph_def)
    for n in (1, 5):
        x = made(0, (n, 8), np.float32)
        (found,) = run(graph_def, {"x": x})
        np.testing.assert_allclose(found, function({"x": x})["y"], rtol=1e-6)


def test_inputs_and_outputs_have_the_given_names():
    def function(args):
        return {"out/sum": args["param/w"] + args["in/x"], "out/same": args["in/x"]}

    args = {"param/w": np.ones((2, 2), np.float32), "in/x": np.ones((2, 2), np.float32)}
    graph_def = tf1_graph.lower(function, shapes_of(args))
    total, same = run(graph_def, args, ["out/sum", "out/same"])
    assert total.tolist() == [[2, 2], [2, 2]]
    assert same.tolist() == [[1, 1], [1, 1]]


def test_the_gradient_of_relu_and_stop_gradient_survive():
    def function(args):
        x = args["x"]
        return {"y": jnp.sum(jax.nn.relu(x) * (1 + lax.stop_gradient(x)))}

    x = np.array([-1.0, 0.0, 3.0], np.float32)
    graph_def = tf1_graph.lower(function, shapes_of({"x": x}))
    with tf.Graph().as_default() as graph:
        tf.import_graph_def(graph_def, name="")
        (gradient,) = tf.compat.v1.gradients(
            graph.get_tensor_by_name("y:0"), graph.get_tensor_by_name("x:0")
        )
        with tf.compat.v1.Session(graph=graph) as session:
            found = session.run(gradient, {"x:0": x})
    expected = jax.grad(lambda x: function({"x": x})["y"])(x)
    assert found.tolist() == expected.tolist() == [0, 0, 4]


def test_infinities_of_softmax_are_dropped_and_others_refused():
    graph_def = tf1_graph.lower(*map_shapes(jax.nn.softmax, M))
    constants = [tf.make_ndarray(n.attr["value"].tensor) for n in graph_def.node if n.op == "Const"]
    assert all(np.isfinite(c).all() for c in constants)


def map_shapes(function, *shapes, dtype=np.float32):
    """Wraps `function` with positional arrays, as `lower` expects it."""
    names = [f"x{i}" for i in range(len(shapes))]
    args = {n: jax.ShapeDtypeStruct(s, dtype) for n, s in zip(names, shapes, strict=True)}
    return lambda args: {"y": function(*(args[n] for n in names))}, args


@jax.custom_jvp
def own_derivative(x):
    return x


own_derivative.defjvp(lambda primals, tangents: (primals[0], 2 * tangents[0]))
B, C = jax.export.symbolic_shape("b, c")


@pytest.mark.parametrize(
    ("function", "shapes", "message"),
    [
        (jnp.sort, [M], "sort in layer .none. cannot be exported as tf1: TensorFlow 1.15 has no"),
        (jax.named_scope("Layer_3")(jnp.cumprod), [V], "cumprod in layer Layer_3 cannot"),
        (own_derivative, [V], "own_derivative has a custom derivative; allowed: relu"),
        (lambda x: x + jnp.array([np.inf, 1, 1, 1]), [M], "one of its constants is infinite"),
        (lambda x: jnp.maximum(x, np.inf), [M], "max .* one of its constants is infinite"),
        (partial(conv, dimensions=("NCHW", "OIHW", "NCHW")), [(1, 3, 8, 8), (5, 3, 3, 3)], "NHWC"),
        (
            partial(conv, feature_group_count=2), [(2, 8, 7, 4), (3, 3, 2, 4)],
            "a grouped convolution that is not depthwise",
        ),
        (
            partial(conv, feature_group_count=3, strides=(1, 2)), [T4, (3, 3, 1, 3)],
            "a depthwise convolution that is dilated, or with two strides",
        ),
        (
            partial(conv, lhs_dilation=(2, 2), padding=((1, 1), (1, 1))),
            [T4, (3, 3, 3, 5)],
            "a transposed convolution",
        ),
        (partial(conv, padding=((-1, 0), (0, 0))), [T4, (3, 3, 3, 5)], "negative padding"),
        (
            lambda x, y: lax.dot(x, y, preferred_element_type=jnp.float64),
            [M, (4, 2)],
            "a result of float64 from float32",
        ),
        (lambda x: lax.pad(x, 0.0, ((0, 0, 1), (0, 0, 0))), [M], "negative or interior padding"),
        (lambda x: lax.pad(x, 0.0, ((-1, 0, 0), (0, 0, 0))), [M], "negative or interior padding"),
        (lambda x: lax.round(x, lax.RoundingMethod.AWAY_FROM_ZERO), [M], "away from zero"),
        (
            partial(max_pool, size=(1, 1, 1, 3), strides=(1, 1, 1, 1), padding="VALID"),
            [T4],
            "a window other than over the height and width",
        ),
        (
            partial(max_pool, size=(1, 2, 2, 1), strides=(1, 1, 1, 1), padding="VALID",
                    window_dilation=(1, 2, 2, 1)),
            [T4],
            "a dilated window",
        ),
        (partial(max_pool, size=(2,), strides=(1,), padding="VALID"), [V], "a window other than"),
        (lambda x: lax.dynamic_slice(x, (jnp.argmax(x), 0), (1, 2)), [M], "dynamic_slice"),
        (lambda x: jnp.take(x, jnp.argmax(x, 1), axis=0, mode="clip"), [M], "may be out of range"),
        (
            lambda x: lax.select_n(jnp.argmax(x, 1), *3 * [x[:, 0]]),
            [(3, 3)],
            "a choice between more than two values",
        ),
        (
            lambda x: lax.switch(jnp.argmax(x), [jnp.sin, jnp.cos, jnp.tan], x),
            [V],
            "a choice between more than two branches",
        ),
        (lambda x: x.at[jnp.argmax(x, 1)].add(1.0), [(3, 3)], "a scatter other than"),
        (lambda x: x.at[jnp.argmax(x)[None]].add(1.0, mode="clip"), [V], "may be out of range"),
        (lambda x: lax.slice(x, (0, 1), (x.shape[0], 3)), [(B, 4)], None),
        (lambda x: x[1:3], [(B, 4)], "gather"),
        (lambda x: x.reshape(-1), [(B, C)], None),
        (lambda x: jnp.concatenate([x, x]) + 1, [(B, 4)], None),
        (lambda x: jnp.ones(2 * x.shape[0]), [(B, 4)], "the length 2.b, which is not a dimension"),
        (lambda x: x.reshape(x.shape[1], x.shape[0]), [(B, C)], "two unknown dimensions"),
        (lambda x: x * jnp.arange(x.shape[0])[:, None], [(B, 4)], "cannot be exported as tf1"),
    ],
)  # fmt: skip
def test_what_has_no_operation_is_refused_by_name(function, shapes, message):
    with jax.enable_x64("float64" in (message or "")):
        args = map_shapes(function, *shapes)
        if message is None:  # it can be exported
            require_1_15(tf1_graph.lower(*args))
            return
        with pytest.raises(UsageError, match=message):
            tf1_graph.lower(*args)
