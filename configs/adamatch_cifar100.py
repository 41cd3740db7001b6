"""AdaMatch on CIFAR-100 with WRN-28-8."""

import ml_collections

from configs import published


def get_config() -> ml_collections.ConfigDict:
    """USB's values and variant; the authors' own runs are on DomainNet."""
    return published.usb("adamatch", "cifar100.1@400-0", threshold=0.95, variant="usb")
