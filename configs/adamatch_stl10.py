"""AdaMatch on STL-10."""

import ml_collections

from configs import published


def get_config() -> ml_collections.ConfigDict:
    """USB's values and variant; the authors' own runs are on DomainNet."""
    return published.usb("adamatch", "stl10.1@1000-0", threshold=0.95, variant="usb")
