"""Products, convolutions and pooling as operations of TensorFlow 1.15: see `tf1_rules.py`."""

import math

import numpy as np
from jax import lax

from ssljax.export.tf1_rules import (
    Rule,
    Unsupported,
    input_shape,
    padded,
    raw,
    result,
    shape_dtype,
    with_wildcard,
)


def _dot_general(eqn, x, y):
    contracted, batch = eqn.params["dimension_numbers"]
    ranks = [len(input_shape(eqn, i)) for i in (0, 1)]
    _same_dtype(eqn)
    if ranks == [2, 2] and not any(batch) and len(contracted[0]) == 1:
        return raw.MatMul(
            a=x, b=y, transpose_a=contracted[0][0] == 0, transpose_b=contracted[1][0] == 1
        )
    free = [
        [i for i in range(rank) if i not in (*contracted[side], *batch[side])]
        for side, rank in enumerate(ranks)
    ]
    a = _as_matrices(x, input_shape(eqn), batch[0], free[0], contracted[0])
    b = _as_matrices(y, input_shape(eqn, 1), batch[1], contracted[1], free[1])
    product = raw.BatchMatMul(x=a, y=b) if any(batch) else raw.MatMul(a=a, b=b)
    if len(free[0]) == len(free[1]) == 1:
        return product
    return raw.Reshape(tensor=product, shape=with_wildcard(result(eqn).shape))


def _as_matrices(x, shape, batch, rows, columns):
    """Reshapes `x` to the dimensions `batch`, then `rows` merged into one, then `columns`."""
    order = [*batch, *rows, *columns]
    if order != [*range(len(shape))]:
        x = raw.Transpose(x=x, perm=np.array(order, np.int32))
    if len(rows) == len(columns) == 1:
        return x
    lengths = [math.prod(shape[i] for i in part) for part in (rows, columns)]
    return raw.Reshape(tensor=x, shape=with_wildcard([*(shape[i] for i in batch), *lengths]))


def _same_dtype(eqn):
    result, given = eqn.params["preferred_element_type"], shape_dtype(eqn)
    if result is not None and result != given:
        raise Unsupported(f"a result of {result} from {given}")


# Windows over images [N, H, W, C].


def _conv(eqn, x, kernel):
    params = eqn.params
    layout = lax.ConvDimensionNumbers((0, 3, 1, 2), (3, 2, 0, 1), (0, 3, 1, 2))
    if params["dimension_numbers"] != layout:
        raise Unsupported("a convolution other than of NHWC images by HWIO kernels")
    groups, channels = params["feature_group_count"], input_shape(eqn)[3]
    is_depthwise = groups == channels > 1
    if (groups != 1 and not is_depthwise) or params["batch_group_count"] != 1:
        raise Unsupported("a grouped convolution that is not depthwise")
    if any(d != 1 for d in params["lhs_dilation"]):
        raise Unsupported("a transposed convolution")
    _same_dtype(eqn)
    strides, dilation = params["window_strides"], params["rhs_dilation"]
    if is_depthwise and (len({*strides}) > 1 or {*dilation} != {1}):
        raise Unsupported("a depthwise convolution that is dilated, or with two strides")
    x, padding = _pad_window(
        x,
        input_shape(eqn),
        window=(1, *input_shape(eqn, 1)[:2], 1),
        strides=(1, *strides, 1),
        dilation=(1, *dilation, 1),
        padding=((0, 0), *params["padding"], (0, 0)),
        value=np.zeros([], shape_dtype(eqn)),
    )
    if is_depthwise:
        filters = raw.Reshape(
            tensor=kernel, shape=np.array([*input_shape(eqn, 1)[:2], channels, -1], np.int32)
        )
        return raw.DepthwiseConv2dNative(
            input=x, filter=filters, strides=[1, *strides, 1], padding=padding
        )
    return raw.Conv2D(
        input=x,
        filter=kernel,
        strides=[1, *strides, 1],
        padding=padding,
        dilations=[1, *dilation, 1],
    )


def _pad_window(x, shape, *, window, strides, dilation, padding, value):
    """Returns `x`, padded if necessary, and TensorFlow's name for the remaining padding."""
    if not any(map(any, padding)):
        return x, "VALID"
    lengths = [k if d == 1 else (k - 1) * d + 1 for k, d in zip(window, dilation, strict=True)]
    same = [(0, 0)]
    for length, k, stride in list(zip(shape, lengths, strides, strict=True))[1:-1]:
        total = max((math.ceil(length / stride) - 1) * stride + k - length, 0)
        same.append((total // 2, total - total // 2))
    if tuple(padding) == (*same, (0, 0)):
        return x, "SAME"
    if any(low < 0 or high < 0 for low, high in padding):
        raise Unsupported(f"negative padding {padding}")
    return padded(x, padding, value), "VALID"


def _pool(eqn, x, operation, value):
    params = eqn.params
    window, strides = params["window_dimensions"], params["window_strides"]
    padding = params["padding"]
    if len(window) != 4 or any(n[i] != 1 for n in (window, strides) for i in (0, 3)):
        raise Unsupported("a window other than over the height and width of NHWC images")
    if any(padding[0]) or any(padding[3]):
        raise Unsupported("a window other than over the height and width of NHWC images")
    if any(d != 1 for d in (*params["base_dilation"], *params["window_dilation"])):
        raise Unsupported("a dilated window")
    x, name = _pad_window(
        x,
        # TensorFlow's padded averages do not count the padding, so it is added before.
        input_shape(eqn) if operation is raw.MaxPool else (0, 0, 0, 0),
        window=window,
        strides=strides,
        dilation=(1, 1, 1, 1),
        padding=padding,
        value=np.array(value, shape_dtype(eqn)),
    )
    key = "input" if operation is raw.MaxPool else "value"
    return operation(**{key: x}, ksize=list(window), strides=list(strides), padding=name)


def _max_pool(eqn, x):
    return _pool(eqn, x, raw.MaxPool, np.finfo(shape_dtype(eqn)).min)


def _sum_pool(eqn, x):
    count = math.prod(eqn.params["window_dimensions"])
    return raw.Mul(x=_pool(eqn, x, raw.AvgPool, 0), y=np.array(count, shape_dtype(eqn)))


PRODUCTS: dict[str, Rule] = {
    "conv_general_dilated": _conv,
    "dot_general": _dot_general,
    "reduce_window_max": _max_pool,
    "reduce_window_sum": _sum_pool,
}
