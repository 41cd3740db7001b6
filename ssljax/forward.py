"""The forward pass over any number of images, in batches, on all local devices."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

PyTree = Any
_EACH = 256  # images per device and batch


class Outputs(NamedTuple):
    """A model's outputs for some images."""

    logits: np.ndarray  # [n, C] float32
    probabilities: np.ndarray  # [n, C] float32, softmax of the logits divided by the temperature
    features: np.ndarray | None  # [n, D] float32, the input of the last dense layer, if available


# Maps images on the host, uint8 [size, H, W, C], to `Outputs` with as many rows on the devices.
Forward = Callable[[np.ndarray], Any]


def batch_size(images: int, devices: int, most: int) -> int:
    """Returns the batch size for a number of images: at most `most`, and at most 256 per device.

    A few images are not padded to a full batch. Because each size is compiled, the size is a power
    of two per device.
    """
    each = max(1, min(_EACH, most // devices))
    needed = -(-images // devices)
    return devices * min(each, 1 << max(needed - 1, 0).bit_length())


def compile_forward(
    function: Callable[[PyTree, jax.Array], Any], variables: PyTree, devices: Sequence[Any]
) -> Forward:
    """Compiles `function(variables, images)` with images sharded over devices, variables not."""
    mesh = Mesh(np.array(devices), ("devices",))
    replicated, rows = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in ((), ("devices",)))
    variables = jax.device_put(variables, replicated)
    compiled = jax.jit(function)
    return lambda images: compiled(variables, jax.device_put(images, rows))


def in_batches(forward: Forward, batches: Iterable[np.ndarray], size: int) -> Iterator[Outputs]:
    """Yields the outputs of each batch, uint8 `[n, H, W, C]` with n at most `size`.

    `size` must be divisible by the number of devices. The next batch is computed while the outputs
    of the previous one are fetched, so that the devices do not wait.
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
