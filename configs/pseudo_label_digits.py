"""Pseudo-labels on digits with 40 labels."""

import ml_collections

from configs import digits


def get_config() -> ml_collections.ConfigDict:
    """The values published for CIFAR-10."""
    config = digits.digits("pseudo_label")
    digits.adam(config)
    return config
