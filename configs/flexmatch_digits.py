"""FlexMatch on digits with 40 labels."""

import ml_collections

from configs import digits


def get_config() -> ml_collections.ConfigDict:
    """The published method with the published threshold and ratio, as `fixmatch_digits`."""
    return digits.fixmatch_ratio("flexmatch")
