"""IOMatch on digits with 40 labels."""

import ml_collections

from configs import digits


def get_config() -> ml_collections.ConfigDict:
    """The authors' CIFAR-10 arguments and ratio, with a short first epoch."""
    return digits.fixmatch_ratio("iomatch", dist_align=False, warmup_steps=40)
