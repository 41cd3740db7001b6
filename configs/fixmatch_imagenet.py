"""FixMatch (RandAugment) on ImageNet with 10 % of the labels."""

import ml_collections

from configs import imagenet


def get_config() -> ml_collections.ConfigDict:
    """The published command's values, and the script's defaults for the others."""
    return imagenet.fixmatch()
