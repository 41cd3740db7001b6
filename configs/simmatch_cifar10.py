"""SimMatch on CIFAR-10."""

import ml_collections

from configs import published


def get_config() -> ml_collections.ConfigDict:
    """USB's values, for images of this size."""
    return published.simmatch("cifar10.1@40-0")
