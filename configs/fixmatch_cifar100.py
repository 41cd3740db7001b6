"""FixMatch (RandAugment) on CIFAR-100 with WRN-28-8."""

import ml_collections

from configs import published


def get_config() -> ml_collections.ConfigDict:
    """The paper's values: twice the decay of the other data sets."""
    config = published.fixmatch("cifar100.3@10000-1")
    config.optimizer.weight_decay = 0.001
    return config
