"""A picture of CTAugment's rates: one row per operation, one column per bin."""

import jax.numpy as jnp
import numpy as np
from PIL import Image, ImageDraw

from ssljax.augment.ctaugment import probabilities
from ssljax.augment.ctaugment_spaces import SearchSpace

_CELL, _LABEL = 16, 96  # pixels


def draw(rates: np.ndarray, space: SearchSpace) -> np.ndarray:
    """Draws rates from 0 (black) to 1 (white); bins that training views do not use are red.

    Args:
      rates: float32 `[operations, 2, bins]` of ctaugment.

    Returns:
      uint8 `[height, width, 3]`.
    """
    probability = np.asarray(probabilities(jnp.asarray(rates), space))
    left_out = probability < 0.01  # ImageNet's space adds 0.001 to the probability of these bins
    rows = [
        (op.name, rates[i, k, :bins], left_out[i, k, :bins])
        for i, op in enumerate(space.ops)
        for k, bins in enumerate(op.bins)
    ]
    size = (_LABEL + _CELL * rates.shape[-1], _CELL * len(rows))
    picture = Image.new("RGB", size, (64, 64, 96))
    canvas = ImageDraw.Draw(picture)
    for i, (name, values, out) in enumerate(rows):
        canvas.text((4, i * _CELL + 2), name, fill=(255, 255, 255))
        for j, (value, is_out) in enumerate(zip(values, out, strict=True)):
            grey = int(np.clip(value, 0, 1) * 255)
            color = (max(grey, 80), grey // 3, grey // 3) if is_out else (grey, grey, grey)
            left, top = _LABEL + j * _CELL, i * _CELL
            canvas.rectangle((left, top, left + _CELL - 2, top + _CELL - 2), fill=color)
    return np.asarray(picture)
