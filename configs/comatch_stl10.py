"""CoMatch on STL-10."""

import ml_collections

from configs import published


def get_config() -> ml_collections.ConfigDict:
    """USB's values and variant."""
    return published.usb_comatch("stl10.1@1000-0", contrast_weight=5.0)
