"""Labelled STL-10 images only: the baseline."""

import ml_collections

from configs import published


def get_config() -> ml_collections.ConfigDict:
    """Weak views, Adam; the seed is the fold."""
    return published.supervised("stl10.1@1000-500")
