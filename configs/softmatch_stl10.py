"""SoftMatch on STL-10."""

import ml_collections

from configs import published


def get_config() -> ml_collections.ConfigDict:
    """The values of TorchSSL and USB, its authors' libraries."""
    return published.usb("softmatch", "stl10.1@1000-0")
