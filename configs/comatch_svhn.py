"""CoMatch on SVHN with its extra images."""

import ml_collections

from configs import published


def get_config() -> ml_collections.ConfigDict:
    """USB's values and variant."""
    return published.usb(
        "comatch",
        "svhn.1@40-0",
        smoothing_from=1024,
        projectors=3,
        second_view="strong",
        variant="usb",
    )
