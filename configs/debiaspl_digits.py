"""Debiased pseudo-labelling on digits with 40 labels."""

import ml_collections

from configs import digits


def get_config() -> ml_collections.ConfigDict:
    """FixMatch's threshold, weight and views, with debiased guesses."""
    return digits.fixmatch_ratio(
        "debiaspl",
        threshold=0.95,
        unlabeled_weight=1.0,
        momentum=0.99,
        cld_weight=0.0,
        views=1,
        teacher="self",
    )
