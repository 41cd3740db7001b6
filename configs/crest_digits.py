"""CReST+ on digits with 40 labels."""

import ml_collections

from configs import digits


def get_config() -> ml_collections.ConfigDict:
    """The published method with FixMatch's ratio, in four generations (published: six).

    As in the published code, each generation has the steps of a run of another method.
    """
    return digits.fixmatch_ratio("crest", generations=4)
