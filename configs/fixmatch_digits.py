"""FixMatch on digits with 40 labels: the demo."""

import ml_collections

from configs import base, supervised_digits


def get_config() -> ml_collections.ConfigDict:
    """The published method with the published threshold and ratio."""
    config = supervised_digits.digits(base.get_config())
    config.method = "fixmatch"
    config.method_args = dict(threshold=0.95, unlabeled_weight=1.0, weak_pass="joint")
    config.unlabeled = "all"
    config.uratio = 7
    return config
