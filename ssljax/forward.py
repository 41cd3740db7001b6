"""What a model says of any number of images: a batch at a time, on all devices of this process."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

PyTree = Any
_EACH = 256  # images that a device computes at once


class Outputs(NamedTuple):
    """What a model says of some images."""

    logits: np.ndarray  # [n, C] float32
    probabilities: np.ndarray  # [n, C] float32, of the logits divided by the temperature
    features: np.ndarray | None  # [n, D] float32, the input of the last dense layer, if known


# Images on the host, uint8 [size, H, W, C] -> `Outputs` of as many rows, on the devices.
Forward = Callable[[np.ndarray], Any]


def batch_size(images: int, devices: int, most: int) -> int:
    """How many of so many images are computed at once: at most `most`, and at most 256 per device.

    Few images are not filled up to a whole batch. As each size is compiled, it is a power of two
    per device.
    """
    each = max(1, min(_EACH, most // devices))
    needed = -(-images // devices)
    return devices * min(each, 1 << max(needed - 1, 0).bit_length())


def compile_forward(
    function: Callable[[PyTree, jax.Array], Any], variables: PyTree, devices: Sequence[Any]
) -> Forward:
    """`function(variables, images)`, compiled: a batch is divided by the devices, each of which
    has the variables."""
    mesh = Mesh(np.array(devices), ("devices",))
    replicated, rows = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in ((), ("devices",)))
    variables = jax.device_put(variables, replicated)
    compiled = jax.jit(function)
    return lambda images: compiled(variables, jax.device_put(images, rows))


def in_batches(forward: Forward, batches: Iterable[np.ndarray], size: int) -> Iterator[Outputs]:
    """The outputs of each batch, uint8 `[n, H, W, C]` with n at most `size`, which all devices can
    share.

    One batch is ahead of the one whose outputs are taken, so that the devices do not wait.
    """

    def fetch(images: int, found: Any) -> Outputs:
        return jax.tree.map(lambda x: np.asarray(x)[:images], found)

    running: tuple[int, Any] | None = None
    for images in batches:
        missing = size - len(images)
        padded = np.pad(images, [(0, missing), (0, 0), (0, 0), (0, 0)]) if missing else images
        following = len(images), forward(padded)
        if running is not None:
            yield fetch(*running)
        running = following
    if running is not None:
        yield fetch(*running)
