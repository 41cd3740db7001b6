"""IOMatch on CIFAR-100 of which it knows 50 classes."""

import ml_collections

from configs import published


def get_config() -> ml_collections.ConfigDict:
    """The authors' values."""
    return published.iomatch("cifar100_open50.1@200-0")
