"""Rules that convert JAX primitives to operations of TensorFlow 1.15, one per primitive.

The elementwise rules are in `tf1_elementwise.py`, products and windows in `tf1_products.py`.

A rule takes an equation and its inputs, and returns its result, or raises `Unsupported`. Inputs and
outputs are tensors, or NumPy arrays if the value is known. Elementwise rules take and return
*loose* values: with the rank of JAX's value, and length 1 in dimensions along which it is constant,
since both systems broadcast in the same way. All other rules take *whole* values, which are
broadcast to JAX's shape.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jax import lax

from ssljax.log import quiet_import

with quiet_import():
    import tensorflow as tf

raw = tf.raw_ops
Value = Any  # tf.Tensor or np.ndarray
Rule = Callable[..., Any]


class Unsupported(Exception):
    """TensorFlow 1.15 has no operation for an equation; the message gives the reason."""


def input_shape(eqn: Any, position: int = 0) -> tuple[Any, ...]:
    """Returns the shape of an equation's input; a dimension is a number or a symbol."""
    return eqn.invars[position].aval.shape


def result(eqn: Any) -> Any:
    return eqn.outvars[0].aval


def known(shape: Sequence[Any]) -> bool:
    """Whether all dimensions are numbers, and none is a symbol."""
    return all(isinstance(d, int | np.integer) for d in shape)


def with_wildcard(shape: Sequence[Any]) -> np.ndarray:
    """Returns a shape for `Reshape`, with -1 instead of a symbol."""
    if sum(not known([d]) for d in shape) > 1:
        raise Unsupported(f"two unknown dimensions in the shape {tuple(shape)}")
    return np.array([d if known([d]) else -1 for d in shape], np.int32)


def shape_dtype(eqn):
    return eqn.invars[0].aval.dtype


def _relu(eqn, x):
    """Converts ReLU; its derivative at 0 is 0, as in `jax.nn.relu`."""
    return raw.Relu(features=x)


# Shapes.


def _reshape(eqn, x):
    return raw.Reshape(tensor=x, shape=with_wildcard(result(eqn).shape))


def _transpose(eqn, x):
    return raw.Transpose(x=x, perm=np.array(eqn.params["permutation"], np.int32))


def _concatenate(eqn, *values):
    return raw.ConcatV2(values=list(values), axis=np.int32(eqn.params["dimension"]))


def _stack(eqn, *values):
    return raw.Pack(values=list(values), axis=eqn.params["axis"])


def _split(eqn, x):
    sizes = np.array(eqn.params["sizes"], np.int32)
    axis = np.int32(eqn.params["axis"])
    return raw.SplitV(value=x, size_splits=sizes, axis=axis, num_split=len(sizes))


def _slice(eqn, x):
    start, limit = eqn.params["start_indices"], eqn.params["limit_indices"]
    strides = eqn.params["strides"] or [1] * len(start)
    end_mask = 0
    for i, (end, length) in enumerate(zip(limit, input_shape(eqn), strict=True)):
        if not known([end]):
            if end != length:
                raise Unsupported(f"a slice that ends at {end} of {length}")
            end_mask |= 1 << i
    return raw.StridedSlice(
        input=x,
        begin=np.array(start, np.int32),
        end=np.array([d if known([d]) else 0 for d in limit], np.int32),
        strides=np.array(strides, np.int32),
        end_mask=end_mask,
    )


def _pad(eqn, x, value):
    config = eqn.params["padding_config"]
    if any(low < 0 or high < 0 or interior for low, high, interior in config):
        raise Unsupported(f"negative or interior padding {config}")
    return padded(x, [(low, high) for low, high, _ in config], value)


def padded(x: Value, paddings: Sequence[Sequence[int]], value: Value) -> Value:
    """Pads `x` with `value` before and after it, in each dimension."""
    lengths = np.array(paddings, np.int32)
    if isinstance(value, np.ndarray) and value == 0:
        return raw.Pad(input=x, paddings=lengths)
    return raw.PadV2(input=x, paddings=lengths, constant_values=value)


def _rev(eqn, x):
    return raw.ReverseV2(tensor=x, axis=np.array(eqn.params["dimensions"], np.int32))


def _select(eqn, which, *cases):
    if eqn.invars[0].aval.dtype != bool:
        raise Unsupported("a choice between more than two values")
    return choose(which, cases[1], cases[0])


def choose(which: Value, yes: Value, no: Value) -> Value:
    """Selects elements by a bool tensor, or an entire value by a single bool."""
    if not len(which.shape) and len(yes.shape):
        which = raw.Fill(dims=raw.Shape(input=yes), value=which)
    return raw.Select(condition=which, x=yes, y=no)


def _gather(eqn, x, indices):
    """Gathers elements, or complete slices along the last axes, at given positions."""
    numbers, sizes = eqn.params["dimension_numbers"], eqn.params["slice_sizes"]
    shape = input_shape(eqn)
    picked = {*numbers.start_index_map, *numbers.operand_batching_dims}
    if (
        any(sizes[i] != (1 if i in picked else d) for i, d in enumerate(shape))
        or {*numbers.collapsed_slice_dims, *numbers.operand_batching_dims} != picked
    ):
        raise Unsupported("a gather of parts of slices")
    if eqn.params["mode"] in (lax.GatherScatterMode.CLIP, lax.GatherScatterMode.FILL_OR_DROP):
        raise Unsupported("a gather whose indices may be out of range")
    index_rank, rank = len(input_shape(eqn, 1)) - 1, len(result(eqn).shape)
    before = tuple(i for i in range(rank) if i not in numbers.offset_dims)
    if len(picked) == 1 and not numbers.operand_batching_dims:
        (axis,) = picked
        if before == tuple(range(axis, axis + index_rank)):
            rows = raw.Squeeze(input=indices, axis=[index_rank])
            return raw.GatherV2(params=x, indices=rows, axis=np.int32(axis))
    if picked != set(range(len(picked))) or before != tuple(range(index_rank)):
        raise Unsupported("a gather other than along the first axes, or along one")
    columns = dict(
        zip(numbers.start_index_map, _unpack(indices, len(numbers.start_index_map)), strict=True)
    )
    lengths = input_shape(eqn, 1)[:-1]
    for axis, source in zip(
        numbers.operand_batching_dims, numbers.start_indices_batching_dims, strict=True
    ):
        counter = np.arange(lengths[source], dtype=np.int32)
        counter = counter.reshape([-1 if i == source else 1 for i in range(index_rank)])
        columns[axis] = np.broadcast_to(counter, lengths)
    positions = raw.Pack(values=[columns[i] for i in range(len(picked))], axis=index_rank)
    return raw.GatherNd(params=x, indices=positions)


def _unpack(x, number):
    return raw.Unpack(value=x, num=number, axis=-1)


def _scatter_add(eqn, x, indices, updates):
    """Adds numbers to entries of a vector."""
    if len(input_shape(eqn)) != 1 or len(input_shape(eqn, 1)) != 2 or len(input_shape(eqn, 2)) != 1:
        raise Unsupported("a scatter other than of numbers into a vector")
    if eqn.params["mode"] in (lax.GatherScatterMode.CLIP, lax.GatherScatterMode.FILL_OR_DROP):
        raise Unsupported("a scatter whose indices may be out of range")
    shape = np.array(input_shape(eqn), np.int32)
    return raw.AddV2(x=x, y=raw.ScatterNd(indices=indices, updates=updates, shape=shape))


def _tile(eqn, x):
    return raw.Tile(input=x, multiples=np.array(eqn.params["reps"], np.int32))


def _unstack(eqn, x):
    return raw.Unpack(value=x, num=len(eqn.outvars), axis=eqn.params["axis"])


def _cumsum(eqn, x):
    axis, reverse = np.int32(eqn.params["axis"]), eqn.params["reverse"]
    return raw.Cumsum(x=x, axis=axis, exclusive=False, reverse=reverse)


# Reductions.


def _reduce(name: str) -> Rule:
    def rule(eqn, x):
        axes = np.array(eqn.params["axes"], np.int32)
        return getattr(raw, name)(input=x, axis=axes, keep_dims=False)

    return rule


def _arg(name: str) -> Rule:
    def rule(eqn, x):
        (axis,) = eqn.params["axes"]
        dtype = eqn.params["index_dtype"]
        return getattr(raw, name)(input=x, dimension=np.int32(axis), output_type=dtype)

    return rule


WHOLE: dict[str, Rule] = {
    "argmax": _arg("ArgMax"),
    "argmin": _arg("ArgMin"),
    "concatenate": _concatenate,
    "cumsum": _cumsum,
    "gather": _gather,
    "pad": _pad,
    "reduce_and": _reduce("All"),
    "reduce_max": _reduce("Max"),
    "reduce_min": _reduce("Min"),
    "reduce_or": _reduce("Any"),
    "reduce_prod": _reduce("Prod"),
    "reduce_sum": _reduce("Sum"),
    "reshape": _reshape,
    "rev": _rev,
    "scatter-add": _scatter_add,
    "select_n": _select,
    "slice": _slice,
    "split": _split,
    "squeeze": _reshape,
    "stack": _stack,
    "tile": _tile,
    "transpose": _transpose,
    "unstack": _unstack,
}

# Functions with a custom derivative -> an operation with the same derivative.
CUSTOM: dict[str, Rule] = {"relu": _relu}
# Functions whose custom derivative equals the derivative of their operations.
TRANSPARENT = ("square_conv",)
