"""MixMatch on CIFAR-10 as the Ascend 910 port trained it; seeds 1, 2 and 3."""

import ml_collections

from configs import published


def get_config() -> ml_collections.ConfigDict:
    """The script's defaults for β and the weight, 5,000 validation images."""
    return published.mixmatch("cifar10.1@250-5000", beta=0.5, w_match=100.0)
