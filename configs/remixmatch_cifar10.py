"""ReMixMatch (CTAugment) on CIFAR-10."""

import ml_collections

from configs import published


def get_config() -> ml_collections.ConfigDict:
    """`runs/ssl/cifar10.sh`.

    With 40 labels it has strong_views=1, w_rot=2 and ramp_images=2^23.
    """
    return published.remixmatch("cifar10.3@250-1")
