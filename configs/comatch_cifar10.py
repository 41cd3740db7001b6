"""CoMatch on CIFAR-10."""

import ml_collections

from configs import published


def get_config() -> ml_collections.ConfigDict:
    """The values of `Train_CoMatch.py`."""
    return published.comatch("cifar10.1@40-0")
