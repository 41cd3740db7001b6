"""All labels of ImageNet, strong views (CTAugment): the fully supervised baseline."""

import ml_collections

from configs import imagenet


def get_config() -> ml_collections.ConfigDict:
    """The published command's values, and the script's defaults for the others."""
    config = imagenet.published()
    config.dataset = "imagenet"
    config.method = "supervised"
    config.method_args = dict(view="strong")
    config.num_epochs = 200.0
    config.augment.strong = "cta"
    return config
