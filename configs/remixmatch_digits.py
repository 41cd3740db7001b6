"""ReMixMatch on digits with 40 labels."""

import ml_collections

from configs import digits


def get_config() -> ml_collections.ConfigDict:
    """The published method with two strong views, and a ramp as long a share of the run."""
    config = digits.digits("remixmatch", strong_views=2, ramp_images=32 * 1000)
    config.unlabeled = "all"
    digits.adam(config)
    return config
