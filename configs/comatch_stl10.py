"""CoMatch on STL-10."""

import ml_collections

from configs import published


def get_config() -> ml_collections.ConfigDict:
    """USB's values and variant."""
    return published.usb(
        "comatch",
        "stl10.1@1000-0",
        smoothing_from=1024,
        projectors=3,
        second_view="strong",
        variant="usb",
        contrast_weight=5.0,
    )
