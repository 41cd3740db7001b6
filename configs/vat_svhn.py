"""VAT on SVHN with its extra images, or (svhn_noextra) without."""

import ml_collections

from configs import published


def get_config() -> ml_collections.ConfigDict:
    """`runs/table6.sh`, `runs/table7.sh`; its label smoothing changes nothing there."""
    return published.baseline("vat", "svhn.3@250-5000")
