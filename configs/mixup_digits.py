"""MixUp on digits with 40 labels."""

import ml_collections

from configs import digits


def get_config() -> ml_collections.ConfigDict:
    """The values published for CIFAR-10."""
    config = digits.digits("mixup", use_unlabeled=True)
    digits.adam(config)
    return config
