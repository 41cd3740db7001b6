"""Pseudo-labels on CIFAR-10."""

import ml_collections

from configs import published


def get_config() -> ml_collections.ConfigDict:
    """`runs/table5.sh`."""
    return published.baseline("pseudo_label", "cifar10.3@250-5000")
