"""SimMatch on SVHN with its extra images."""

import ml_collections

from configs import published


def get_config() -> ml_collections.ConfigDict:
    """USB's values, for images of this size."""
    return published.simmatch("svhn.1@40-0")
