"""MixMatch on digits with 40 labels."""

import ml_collections

from configs import base, supervised_digits


def get_config() -> ml_collections.ConfigDict:
    """The published method; the ramp is as long a share of the run as the recipe wants."""
    config = supervised_digits.digits(base.get_config())
    config.method = "mixmatch"
    config.method_args = dict(beta=0.75, w_match=75.0, temperature=0.5, ramp_images=32 * 1000)
    supervised_digits.adam(config)
    return config
