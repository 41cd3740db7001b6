"""Labelled CIFAR-10 images only: the baseline."""

import ml_collections

from configs import published


def get_config() -> ml_collections.ConfigDict:
    """Weak views, Adam."""
    return published.supervised("cifar10.3@250-5000")
