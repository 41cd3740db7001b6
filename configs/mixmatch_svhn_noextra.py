"""MixMatch on SVHN without its extra images."""

import ml_collections

from configs import published


def get_config() -> ml_collections.ConfigDict:
    """`runs/table6.sh`."""
    return published.mixmatch("svhn_noextra.3@250-5000", w_match=250.0)
