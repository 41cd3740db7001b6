"""SoftMatch on CIFAR-100 with WRN-28-8."""

import ml_collections

from configs import published


def get_config() -> ml_collections.ConfigDict:
    """The values of TorchSSL and USB, its authors' libraries (USB: `filters=32`)."""
    return published.usb("softmatch", "cifar100.1@400-0")
