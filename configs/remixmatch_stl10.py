"""ReMixMatch (CTAugment) on STL-10."""

import ml_collections

from configs import published


def get_config() -> ml_collections.ConfigDict:
    """`runs/ssl/stl10.sh`; the seed is the fold."""
    return published.remixmatch("stl10.1@1000-1", strong_views=4, anchor="none")
