"""CReST+ on digits with 40 labels."""

import ml_collections

from configs import digits


def get_config() -> ml_collections.ConfigDict:
    """The published method with FixMatch's ratio, in four generations of 500 steps."""
    config = digits.fixmatch_ratio("crest", generations=4)
    config.num_steps = 500
    return config
