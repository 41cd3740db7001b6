"""USB's classic recipe on STL-10.

    ssljax --config=usb_classic_stl10 --config.method=flexmatch

`--config.method=freematch` and others are compared on the same recipe.
"""

import ml_collections

from configs import published


def get_config() -> ml_collections.ConfigDict:
    """FixMatch in `config/classic_cv` of USB."""
    return published.usb("fixmatch", "stl10.1@1000-0")
