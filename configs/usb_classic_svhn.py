"""USB's classic recipe on SVHN with its extra images.

    ssljax --config=usb_classic_svhn --config.method=flexmatch

`--config.method=freematch` and others are compared on the same recipe.
"""

import ml_collections

from configs import published


def get_config() -> ml_collections.ConfigDict:
    """FixMatch in `config/classic_cv` of USB."""
    return published.usb("fixmatch", "svhn.1@40-0")
