"""SimMatch on digits with 40 labels."""

import ml_collections

from configs import digits, published


def get_config() -> ml_collections.ConfigDict:
    """USB's arguments for small images, but for one projector and a short first epoch."""
    return digits.fixmatch_ratio("simmatch", warmup_steps=40, **published.SIMMATCH)
