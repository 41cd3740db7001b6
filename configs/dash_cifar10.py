"""Dash on CIFAR-10."""

import ml_collections

from configs import published


def get_config() -> ml_collections.ConfigDict:
    """The values of the authors' script for SVHN."""
    return published.dash("cifar10.1@40-1")
