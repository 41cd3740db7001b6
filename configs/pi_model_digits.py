"""The Π-model on digits with 40 labels."""

import ml_collections

from configs import base, supervised_digits


def get_config() -> ml_collections.ConfigDict:
    """The values published for CIFAR-10."""
    config = supervised_digits.digits(base.get_config())
    config.method = "pi_model"
    config.method_args = dict(consistency_weight=20.0, warmup_pos=0.4)
    supervised_digits.adam(config)
    return config
