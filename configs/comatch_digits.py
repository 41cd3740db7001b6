"""CoMatch on digits with 40 labels."""

import ml_collections

from configs import digits


def get_config() -> ml_collections.ConfigDict:
    """The published method and ratio, with a second strong view like the first."""
    return digits.fixmatch_ratio("comatch", second_view="strong")
