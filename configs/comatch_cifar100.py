"""CoMatch on CIFAR-100 with WRN-28-8."""

import ml_collections

from configs import published


def get_config() -> ml_collections.ConfigDict:
    """The settings of `Train_CoMatch.py`, with FixMatch's weight decay for this data set."""
    config = published.comatch("cifar100.1@400-0")
    config.optimizer.weight_decay = 0.001
    return config
