"""SimMatch on STL-10."""

import ml_collections

from configs import published


def get_config() -> ml_collections.ConfigDict:
    """USB's values, for images of this size."""
    return published.simmatch("stl10.1@1000-0")
