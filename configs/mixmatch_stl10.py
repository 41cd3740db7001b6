"""MixMatch on STL-10."""

import ml_collections

from configs import published


def get_config() -> ml_collections.ConfigDict:
    """`runs/table2.sh`; the seed is the fold."""
    return published.mixmatch("stl10.1@1000-500", w_match=50.0)
