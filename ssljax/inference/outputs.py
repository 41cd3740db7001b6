"""A trained model's logits and features of any number of images, on all devices."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ssljax.augment.ops import to_float
from ssljax.trained import Trained


class Outputs(NamedTuple):
    """What a model says of some images."""

    logits: np.ndarray  # [n, C] float32
    features: np.ndarray  # [n, D] float32, the input of the last dense layer


# uint8 images [size, H, W, C] on the host -> logits and features on the devices
Forward = Callable[[np.ndarray], tuple[jax.Array, jax.Array]]


def batch_size(devices: Sequence[jax.Device], each: int = 256) -> int:
    """Images that a call of `compile_forward` is given."""
    return each * len(devices)


def compile_forward(trained: Trained, devices: Sequence[jax.Device]) -> Forward:
    """The model in evaluation mode; a batch is divided by the devices, the weights are on each.

    Logits are adjusted for a model of `Trained.adjusted`.
    """
    mesh = Mesh(np.array(devices), ("devices",))
    replicated, rows = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in ((), ("devices",)))
    variables = jax.device_put(trained.variables, replicated)
    adjustment = trained.adjustment

    @jax.jit
    def forward(variables, images):
        found: Any = trained.model.apply(variables, to_float(images), train=False)
        logits, features = found
        logits = logits if adjustment is None else logits - adjustment[None]
        return logits.astype(jnp.float32), features.astype(jnp.float32)

    return lambda images: forward(variables, jax.device_put(images, rows))


def outputs(
    trained: Trained, batches: Iterable[np.ndarray], devices: Sequence[jax.Device] | None = None
) -> Iterator[Outputs]:
    """The outputs for each batch, uint8 `[n, H, W, C]` with n at most `batch_size(devices)`.

    One batch is ahead of the one whose outputs are taken, so that the devices do not wait.
    """
    devices = list(devices or jax.devices())
    forward, size = compile_forward(trained, devices), batch_size(devices)

    def fetch(images: int, found: tuple[jax.Array, jax.Array]) -> Outputs:
        return Outputs(*(np.asarray(x)[:images] for x in found))

    running: tuple[int, tuple[jax.Array, jax.Array]] | None = None
    for images in batches:
        padded = np.zeros((size, *trained.image_shape), np.uint8)
        padded[: len(images)] = images
        following = len(images), forward(padded)
        if running is not None:
            yield fetch(*running)
        running = following
    if running is not None:
        yield fetch(*running)
