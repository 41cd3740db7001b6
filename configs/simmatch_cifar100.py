"""SimMatch on CIFAR-100 with WRN-28-8."""

import ml_collections

from configs import published


def get_config() -> ml_collections.ConfigDict:
    """USB's values, for images of this size."""
    return published.simmatch("cifar100.1@400-0")
