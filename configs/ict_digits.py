"""ICT on digits with 40 labels."""

import ml_collections

from configs import base, supervised_digits


def get_config() -> ml_collections.ConfigDict:
    """The published method and optimizer; a weight that suits a short run."""
    config = supervised_digits.digits(base.get_config())
    config.method = "ict"
    config.method_args = dict(beta=0.75, consistency_weight=100.0, warmup_pos=0.4)
    supervised_digits.adam(config)
    return config
