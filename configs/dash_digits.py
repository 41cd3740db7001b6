"""Dash on digits with 40 labels."""

import ml_collections

from configs import digits


def get_config() -> ml_collections.ConfigDict:
    """The published method and ratio, with epochs of ten steps."""
    return digits.fixmatch_ratio("dash", epoch_images=80)
