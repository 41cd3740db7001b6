"""MixUp on digits with 40 labels."""

import ml_collections

from configs import base, supervised_digits


def get_config() -> ml_collections.ConfigDict:
    """The values published for CIFAR-10."""
    config = supervised_digits.digits(base.get_config())
    config.method = "mixup"
    config.method_args = dict(beta=0.75, use_unlabeled=True)
    supervised_digits.adam(config)
    return config
