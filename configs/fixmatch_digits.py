"""FixMatch on digits with 40 labels: the demo."""

import ml_collections

from configs import digits


def get_config() -> ml_collections.ConfigDict:
    """The published method with the published threshold and ratio."""
    config = digits.digits("fixmatch")
    config.unlabeled = "all"
    config.uratio = 7
    return config
