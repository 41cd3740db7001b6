"""AdaMatch on digits with 40 labels."""

import ml_collections

from configs import digits


def get_config() -> ml_collections.ConfigDict:
    """The authors' method, threshold and ratio, with averages over a hundred steps."""
    config = digits.digits("adamatch", momentum=0.99)
    config.unlabeled = "all"
    config.uratio = 3
    return config
