"""MixMatch on SVHN with its extra images."""

import ml_collections

from configs import published


def get_config() -> ml_collections.ConfigDict:
    """`runs/table7.sh`."""
    return published.mixmatch("svhn.3@250-5000", beta=0.25, w_match=250.0)
