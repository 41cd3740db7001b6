"""What networks see of images."""

import jax
import jax.numpy as jnp


def to_float(images: jax.Array) -> jax.Array:
    """Pixels 0..255 -> float32 -1..1, the scaling of all published recipes."""
    return images.astype(jnp.float32) / 127.5 - 1
