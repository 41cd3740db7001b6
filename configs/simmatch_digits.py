"""SimMatch on digits with 40 labels."""

import ml_collections

from configs import digits


def get_config() -> ml_collections.ConfigDict:
    """USB's arguments for small images, but for one projector and a short first epoch."""
    config = digits.digits(
        "simmatch",
        threshold=0.95,
        unlabeled_weight=1.0,
        instance_weight=1.0,
        alignment_steps=32,
        warmup_steps=40,
        bank_momentum=0.7,
        teacher="self",
    )
    config.unlabeled = "all"
    config.uratio = 7
    return config
