"""FreeMatch on digits with 40 labels."""

import ml_collections

from configs import digits


def get_config() -> ml_collections.ConfigDict:
    """The published method and ratio, with averages over a hundred steps."""
    config = digits.digits("freematch", momentum=0.99)
    config.unlabeled = "all"
    config.uratio = 7
    return config
