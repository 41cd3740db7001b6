"""FreeMatch on CIFAR-10."""

import ml_collections

from configs import published


def get_config() -> ml_collections.ConfigDict:
    """The values of TorchSSL and USB, its authors' libraries."""
    return published.usb("freematch", "cifar10.1@40-0")
