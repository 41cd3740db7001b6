"""MixMatch on CIFAR-10."""

import ml_collections

from configs import published


def get_config() -> ml_collections.ConfigDict:
    """`runs/table5.sh`: the paper's values for every number of labels."""
    return published.mixmatch("cifar10.3@250-5000")
