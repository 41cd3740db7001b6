"""SoftMatch on SVHN with its extra images."""

import ml_collections

from configs import published


def get_config() -> ml_collections.ConfigDict:
    """The values of TorchSSL and USB, its authors' libraries."""
    return published.usb("softmatch", "svhn.1@40-0")
