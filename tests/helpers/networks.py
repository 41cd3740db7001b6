"""Convolutions in NumPy, and the sizes of networks."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict


def shapes(model, *image_shape):
    """Returns parameter shapes, `Conv_0/kernel` -> (3, 3, 3, 16), without computing anything."""
    init = partial(model.init, train=False)
    variables = jax.eval_shape(init, jax.random.PRNGKey(0), jnp.zeros((1, *image_shape)))
    flat = flatten_dict(variables["params"], sep="/")
    return {name: leaf.shape for name, leaf in flat.items()}


def size(model, *image_shape):
    return sum(int(np.prod(shape)) for shape in shapes(model, *image_shape).values())


def convolve(x, kernel, bias, stride):
    """Computes a convolution with TensorFlow's "same" padding (an odd zero comes last), float64."""
    side, height, width = kernel.shape[0], x.shape[1], x.shape[2]
    out_height, out_width = -(-height // stride), -(-width // stride)
    rows = max((out_height - 1) * stride + side - height, 0)
    columns = max((out_width - 1) * stride + side - width, 0)
    x = np.pad(
        x,
        ((0, 0), (rows // 2, rows - rows // 2), (columns // 2, columns - columns // 2), (0, 0)),
    )
    y = np.zeros((len(x), out_height, out_width, kernel.shape[3])) + bias
    for i in range(side):
        for j in range(side):
            pixels = x[:, i : i + out_height * stride : stride, j : j + out_width * stride : stride]
            y += pixels[:, :out_height, :out_width] @ kernel[i, j]
    return y
