"""SoftMatch on digits with 40 labels."""

import ml_collections

from configs import digits


def get_config() -> ml_collections.ConfigDict:
    """The published method and ratio, with averages over a hundred steps."""
    return digits.fixmatch_ratio("softmatch", momentum=0.99)
