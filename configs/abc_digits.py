"""ABC over FixMatch on digits with 40 labels."""

import ml_collections

from configs import digits


def get_config() -> ml_collections.ConfigDict:
    """The published method, with FixMatch's ratio and optimizer, as `fixmatch_digits`."""
    return digits.fixmatch_ratio("abc")
