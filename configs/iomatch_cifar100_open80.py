"""IOMatch on CIFAR-100 of which it knows 80 classes."""

import ml_collections

from configs import published


def get_config() -> ml_collections.ConfigDict:
    """The authors' values."""
    return published.iomatch("cifar100_open80.1@320-0")
