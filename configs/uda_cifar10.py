"""UDA (RandAugment) on CIFAR-10."""

import ml_collections

from configs import published


def get_config() -> ml_collections.ConfigDict:
    """The published script's values."""
    return published.uda("cifar10.3@250-1")
