"""CoMatch on SVHN with its extra images."""

import ml_collections

from configs import published


def get_config() -> ml_collections.ConfigDict:
    """USB's values and variant."""
    return published.usb_comatch("svhn.1@40-0")
