"""ReMixMatch (CTAugment) on SVHN without its extra images."""

import ml_collections

from configs import published


def get_config() -> ml_collections.ConfigDict:
    """`runs/ssl/svhn.sh`.

    With 40 labels it has strong_views=1 and w_rot=3.
    """
    return published.remixmatch("svhn_noextra.3@250-1")
