"""MixMatch on digits with 40 labels."""

import ml_collections

from configs import digits


def get_config() -> ml_collections.ConfigDict:
    """The published method; the ramp is as long a share of the run as the recipe wants."""
    config = digits.digits("mixmatch", ramp_images=32 * 1000)
    digits.adam(config)
    return config
