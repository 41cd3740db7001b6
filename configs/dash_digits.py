"""Dash on digits with 40 labels."""

import ml_collections

from configs import digits


def get_config() -> ml_collections.ConfigDict:
    """The published method and ratio, with epochs of ten steps."""
    config = digits.digits("dash", epoch_images=80)
    config.unlabeled = "all"
    config.uratio = 7
    return config
