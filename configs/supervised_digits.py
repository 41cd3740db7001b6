"""Labelled digits only: what the methods on digits are compared with."""

import ml_collections

from configs import digits


def get_config() -> ml_collections.ConfigDict:
    """Weak views, SGD; the same steps and batch as `fixmatch_digits`."""
    return digits.digits("supervised")
