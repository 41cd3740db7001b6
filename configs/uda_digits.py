"""UDA on digits with 40 labels."""

import ml_collections

from configs import base, supervised_digits


def get_config() -> ml_collections.ConfigDict:
    """The published method with the published threshold and ratio, as `fixmatch_digits`."""
    config = supervised_digits.digits(base.get_config())
    config.method = "uda"
    config.method_args = dict(threshold=0.95, unlabeled_weight=1.0, temperature=1.0)
    config.unlabeled = "all"
    config.uratio = 7
    return config
