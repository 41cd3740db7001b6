"""Dash on SVHN without its extra images: svhn_noextra."""

import ml_collections

from configs import published


def get_config() -> ml_collections.ConfigDict:
    """The values of `start_train.sh`."""
    return published.dash("svhn_noextra.1@40-1")
