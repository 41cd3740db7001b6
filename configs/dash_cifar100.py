"""Dash on CIFAR-100 with WRN-28-8."""

import ml_collections

from configs import published


def get_config() -> ml_collections.ConfigDict:
    """The values of the authors' script for SVHN, with FixMatch's decay for this data set."""
    config = published.dash("cifar100.1@400-1")
    config.optimizer.weight_decay = 0.001
    return config
