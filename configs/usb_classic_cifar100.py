"""USB's classic recipe on CIFAR-100 with WRN-28-2.

    ssljax --config=usb_classic_cifar100 --config.method=flexmatch

`--config.method=freematch` and others are compared on the same recipe.
"""

import ml_collections

from configs import published


def get_config() -> ml_collections.ConfigDict:
    """FixMatch in `config/classic_cv` of USB."""
    config = published.usb("fixmatch", "cifar100.1@400-0")
    config.model_args = {}
    return config
