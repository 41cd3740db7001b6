"""A case for each rule of the lowering to TensorFlow 1: a function, and inputs for it."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ssljax.models import layers

INT, BOOL = np.int32, np.bool_


def made(seed, shape, dtype):
    random = np.random.RandomState(seed)
    if dtype == BOOL:
        return random.rand(*shape) < 0.5
    if np.issubdtype(dtype, np.integer):
        return random.randint(0, 4, shape).astype(dtype)
    return random.uniform(-2, 2, shape).astype(dtype)


def positive(f):
    return lambda x, *rest: f(jnp.abs(x) + 0.1, *rest)


def conv(x, kernel, strides=(1, 1), padding="SAME", **options):
    dimensions = options.pop("dimensions", ("NHWC", "HWIO", "NHWC"))
    return lax.conv_general_dilated(
        x, kernel, strides, padding, dimension_numbers=dimensions, **options
    )


def window(x, start, operation, size, strides, padding, **options):
    return lax.reduce_window(x, start, operation, size, strides, padding, **options)


max_pool = partial(window, start=-np.inf, operation=lax.max)
sum_pool = partial(window, start=0.0, operation=lax.add)
ROWS = np.array([2, 0, 0, 1])


def one_hot(x):
    return jax.nn.one_hot(jnp.argmax(x, axis=-1), x.shape[-1])


def take(x, rows):
    return jnp.asarray(x).at[rows].get(mode="promise_in_bounds")


def take_columns(x, columns):
    return jnp.asarray(x).at[:, columns].get(mode="promise_in_bounds")


V, M, T4 = (5,), (3, 4), (2, 8, 7, 3)  # a vector, a matrix, images
KERNEL = ((3, 3, 3, 5), None)  # None: the floating type under test
# Name -> function, shapes of its inputs, each with a type (None: floating).
CASES = {
    "abs": (jnp.abs, M),
    "add": (jnp.add, M, M),
    "add broadcast": (lambda x, y: x + y[None], M, (4,)),
    "add outer": (lambda x, y: x[:, None] + y[None], V, V),
    "and": (jnp.logical_and, (M, BOOL), (M, BOOL)),
    "argmax": (lambda x: jnp.argmax(x, axis=1), M),
    "argmin": (lambda x: jnp.argmin(x, axis=0), M),
    "broadcast in the middle": (lambda x: jnp.broadcast_to(x[:, None], (3, 2, 4)), M),
    "broadcast then sum": (lambda x: jnp.broadcast_to(x[:, None], (3, 2, 4)).sum(1), M),
    "broadcast of a constant": (lambda x: jnp.concatenate([x, jnp.ones((2, 4), x.dtype)]), M),
    "ceil": (jnp.ceil, M),
    "clamp": (lambda x: lax.clamp(x.dtype.type(-1), x, x.dtype.type(0.5)), M),
    "concatenate": (lambda x, y: jnp.concatenate([x, y], axis=1), M, (3, 2)),
    "constants are folded": (lambda x: x * jnp.sqrt(jnp.arange(4, dtype=x.dtype) + 1)[None], M),
    "conv same": (conv, T4, KERNEL),
    "conv same, stride 2": (partial(conv, strides=(2, 2)), T4, KERNEL),
    "conv valid": (partial(conv, padding="VALID", strides=(2, 1)), T4, KERNEL),
    "conv explicit": (partial(conv, padding=((3, 3), (2, 1)), strides=(2, 2)), T4, KERNEL),
    "conv dilated": (partial(conv, rhs_dilation=(2, 2)), T4, KERNEL),
    "conv 1×1": (partial(conv, strides=(2, 2), padding="VALID"), T4, ((1, 1, 3, 5), None)),
    "conv depthwise": (partial(conv, feature_group_count=3), T4, ((3, 3, 1, 3), None)),
    "conv depthwise, stride 2, two for each channel": (
        partial(conv, feature_group_count=3, strides=(2, 2)), T4, ((5, 5, 1, 6), None)
    ),
    "convert to int": (lambda x: x.astype(jnp.int32), M),
    "convert to float": (lambda x: x.astype(jnp.float32), (M, np.uint8)),
    "convert bool": (lambda x: x.astype(jnp.float32), (M, BOOL)),
    "copy": (jnp.array, M),
    "cos": (jnp.cos, M),
    "custom relu": (jax.nn.relu, M),
    "div": (lambda x, y: x / (jnp.abs(y) + 1), M, M),
    "div of integers": (lambda x, y: lax.div(x - 2, y + 1), (M, INT), (M, INT)),
    "dot": (jnp.dot, M, (4, 2)),
    "dot transposed": (lambda x, y: lax.dot_general(x, y, (((0,), (1,)), ((), ()))), M, (2, 3)),
    "dot of tokens": (lambda x, y: jnp.einsum("ntd,de->nte", x, y), (2, 3, 4), (4, 5)),
    "dot of tokens with two": (
        lambda x, y: jnp.einsum("nhtd,hde->nte", x, y), (2, 3, 4, 5), (3, 5, 6)
    ),
    "dot of batches": (jnp.matmul, (2, 3, 4, 5), (2, 3, 5, 6)),
    "dot of batches transposed": (
        lambda x, y: jnp.einsum("bdhk,bhke->hbde", x, y), (2, 3, 4, 5), (2, 4, 5, 6)
    ),
    "eq": (jnp.equal, (M, INT), (M, INT)),
    "gelu by erf": (layers.gelu, M),
    "layer norm": (
        lambda x, scale, bias: nn.LayerNorm(1e-6, use_fast_variance=False, dtype=x.dtype).apply(
            {"params": {"scale": scale, "bias": bias}}, x
        ), M, (4,), (4,),
    ),
    "relu6": (lambda x: jnp.clip(4 * x, 0, 6), M),
    "bicubic resize": (lambda x: layers.resized(x, 12), T4),
    "erf": (jax.scipy.special.erf, M),
    "exp": (jnp.exp, M),
    "expm1": (jnp.expm1, M),
    "floor": (jnp.floor, M),
    "gather rows": (take, M, ((6,), INT, 3)),
    "gather columns": (take_columns, M, ((6,), INT, 4)),
    "gather rows by a constant": (lambda x: x[ROWS], M),
    "gather a matrix of rows": (take, T4, ((2, 2), INT, 2)),
    "ge": (jnp.greater_equal, M, M),
    "gt": (jnp.greater, M, M),
    "integer_pow": (lambda x: x**2 + (jnp.abs(x) + 1) ** -3, M),
    "is_finite": (lambda x: jnp.isfinite(x / jnp.maximum(x, 0)), M),
    "le": (jnp.less_equal, M, M),
    "log": (positive(jnp.log), M),
    "log_softmax": (jax.nn.log_softmax, M),
    "log1p": (positive(jnp.log1p), M),
    "logistic": (jax.nn.sigmoid, M),
    "lt": (jnp.less, M, M),
    "leaky_relu": (partial(jax.nn.leaky_relu, negative_slope=0.1), M),
    "max": (jnp.maximum, M, M),
    "max pool": (partial(max_pool, size=(1, 2, 2, 1), strides=(1, 2, 2, 1), padding="VALID"), T4),
    "max pool same": (
        partial(max_pool, size=(1, 3, 3, 1), strides=(1, 2, 2, 1), padding="SAME"), T4
    ),
    "max pool explicit": (
        partial(max_pool, size=(1, 3, 3, 1), strides=(1, 2, 2, 1),
                padding=((0, 0), (2, 1), (1, 2), (0, 0))), T4
    ),
    "min": (jnp.minimum, M, M),
    "mul": (jnp.multiply, M, M),
    "ne": (jnp.not_equal, (M, INT), (M, INT)),
    "neg": (jnp.negative, M),
    "not": (jnp.logical_not, (M, BOOL)),
    "one_hot of argmax": (one_hot, M),
    "or": (jnp.logical_or, (M, BOOL), (M, BOOL)),
    "pad": (lambda x: jnp.pad(x, ((1, 2), (0, 3))), M),
    "pad with 7": (lambda x: jnp.pad(x, ((1, 2), (0, 3)), constant_values=7), M),
    "pow": (positive(jnp.power), M, M),
    "pow by an integer": (lambda x, y: lax.pow(x, y), M, (M, INT)),
    "reduce_and": (lambda x: jnp.all(x, axis=1), (M, BOOL)),
    "reduce_max": (lambda x: jnp.max(x, axis=(0, 2)), T4),
    "reduce_min": (lambda x: jnp.min(x, axis=1), M),
    "reduce_or": (lambda x: jnp.any(x, axis=0), (M, BOOL)),
    "reduce_prod": (lambda x: jnp.prod(x, axis=1), M),
    "reduce_sum": (lambda x: jnp.sum(x, axis=(1, 2)), T4),
    "reduce_sum to a scalar": (jnp.mean, M),
    "rem": (lambda x, y: lax.rem(x, y + 3), M, M),
    "reshape": (lambda x: x.reshape(2, -1), M),
    "rev": (lambda x: x[::-1, ::-1], M),
    "round": (lambda x: jnp.round(x * 2) + jnp.round(jnp.floor(x) + 0.5), M),
    "rsqrt": (positive(lax.rsqrt), M),
    "select_n": (jnp.where, (M, BOOL), M, M),
    "select_n by a scalar": (lambda x, y: lax.select(jnp.sum(x) > 0, x, y), M, M),
    "select_n broadcast": (lambda c, x: jnp.where(c[:, None], x, 1.0), ((3,), BOOL), M),
    "sign": (jnp.sign, M),
    "sin": (jnp.sin, M),
    "slice": (lambda x: x[1:3, ::2], M),
    "softmax": (jax.nn.softmax, M),
    "split": (lambda x: sum(p.sum() * i for i, p in enumerate(jnp.split(x, [1, 3], axis=1))), M),
    "sqrt": (positive(jnp.sqrt), M),
    "square": (jnp.square, M),
    "squeeze": (lambda x: x[1:2].squeeze(0), M),
    "stack": (lambda x, y: jnp.stack([x, y], axis=1), M, M),
    "stop_gradient": (lax.stop_gradient, M),
    "sub": (jnp.subtract, M, M),
    "sum pool": (partial(sum_pool, size=(1, 2, 2, 1), strides=(1, 2, 2, 1), padding="VALID"), T4),
    "sum pool same": (
        partial(sum_pool, size=(1, 3, 3, 1), strides=(1, 2, 2, 1), padding="SAME"), T4
    ),
    "swapaxes": (lambda x: x.transpose(0, 2, 3, 1), T4),
    "tanh": (jnp.tanh, M),
    "gradient of a loss": (
        lambda x, y: jax.vjp(lambda x: jnp.sum(jnp.tanh(x) * y * x), x)[1](y.dtype.type(1))[0],
        M, M,
    ),
    "bits": (lambda x, y: (x & y) + ((x | ~y) << 3), (M, INT), (M, INT)),
    "conditional": (lambda x: lax.cond(jnp.sum(x) > 0, jnp.sin, lambda x: x[:1] * x, x), M),
    "conditional of a constant": (
        lambda x: lax.cond(jnp.arange(3)[1] > 0, jnp.sin, jnp.cos, x), M
    ),
    "cumsum": (lambda x: jnp.cumsum(x, axis=1) + lax.cumsum(x, axis=0, reverse=True), M),
    "gather elements": (lambda x, i: take(x, (i[:, 0], i[:, 1])), M, ((6, 2), INT, 3)),
    "gather in each of a batch": (
        jax.vmap(lambda x, i: take(x, i)), T4, ((2, 3, 5), INT, 8)
    ),
    "histogram": (
        lambda i: jnp.zeros(4, jnp.int32).at[i].add(1, mode="promise_in_bounds"), ((9,), INT, 4)
    ),
    "scan": (
        lambda x, y: lax.scan(lambda c, r: (jnp.tanh(c + r), c * r), y, x), M, (4,)
    ),
    "scan reversed": (
        lambda x: lax.scan(lambda c, r: (c + r, c * r), jnp.ones_like(x[0]), x, reverse=True), M
    ),
    "shifts": (lambda x, y: (x << y) + lax.shift_right_arithmetic(x * -5, y), (M, INT), (M, INT)),
    "tile": (lambda x: jnp.tile(x, (2, 3)), M),
    "unstack": (lambda x: sum(i * p for i, p in enumerate(jnp.unstack(x, axis=1))), M),
    "a function within": (lambda x: jax.jit(jnp.sin)(x) + jax.checkpoint(jnp.cos)(x), M),
}  # fmt: skip


def prepared(name, floating=np.float32):
    """A case as `lower` takes it, and numbers for its inputs."""
    function, *inputs = CASES[name]
    arrays = {}
    for i, spec in enumerate(inputs):
        shape, dtype, *below = spec if isinstance(spec[0], tuple) else (spec, None)
        array = made(i, shape, dtype or floating)
        arrays[f"x{i}"] = array % below[0] if below else array

    def named(args):
        outputs = function(*(args[f"x{i}"] for i in range(len(inputs))))
        if isinstance(outputs, tuple):
            outputs = jnp.concatenate([x.reshape(-1) for x in outputs])
        return {"y": outputs}

    return named, arrays


def shapes_of(arrays):
    return {name: jax.ShapeDtypeStruct(x.shape, x.dtype) for name, x in arrays.items()}
