"""FixMatch (RandAugment) on STL-10."""

import ml_collections

from configs import published


def get_config() -> ml_collections.ConfigDict:
    """The published script's values; the seed is the fold."""
    return published.fixmatch("stl10.1@1000-1")
