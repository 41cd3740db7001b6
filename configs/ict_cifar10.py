"""ICT on CIFAR-10."""

import ml_collections

from configs import published


def get_config() -> ml_collections.ConfigDict:
    """`runs/table5.sh`."""
    return published.baseline("ict", "cifar10.3@250-5000")
