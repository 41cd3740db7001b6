"""Pseudo-labels on digits with 40 labels."""

import ml_collections

from configs import base, supervised_digits


def get_config() -> ml_collections.ConfigDict:
    """The values published for CIFAR-10."""
    config = supervised_digits.digits(base.get_config())
    config.method = "pseudo_label"
    config.method_args = dict(threshold=0.95, consistency_weight=1.0, warmup_pos=0.4)
    supervised_digits.adam(config)
    return config
