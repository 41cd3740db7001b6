"""AdaMatch on SVHN with its extra images."""

import ml_collections

from configs import published


def get_config() -> ml_collections.ConfigDict:
    """USB's values and variant; the authors' own runs are on DomainNet."""
    return published.usb("adamatch", "svhn.1@40-0", threshold=0.95, variant="usb")
