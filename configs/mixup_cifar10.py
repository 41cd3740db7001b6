"""MixUp on CIFAR-10."""

import ml_collections

from configs import published


def get_config() -> ml_collections.ConfigDict:
    """`runs/table5.sh`: of labelled and of unlabelled images."""
    return published.baseline("mixup", "cifar10.3@250-5000", use_unlabeled=True)
