"""Labelled CIFAR-100 images only: the baseline, WRN-28-8."""

import ml_collections

from configs import published


def get_config() -> ml_collections.ConfigDict:
    """Weak views, Adam."""
    return published.supervised("cifar100.3@10000-5000")
