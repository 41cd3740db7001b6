"""FixMatch (RandAugment) on SVHN with its extra images, or (svhn_noextra) without."""

import ml_collections

from configs import published


def get_config() -> ml_collections.ConfigDict:
    """The published script's values."""
    return published.fixmatch("svhn.3@250-1")
