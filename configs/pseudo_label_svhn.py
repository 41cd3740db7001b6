"""Pseudo-labels on SVHN with its extra images, or (svhn_noextra) without."""

import ml_collections

from configs import published


def get_config() -> ml_collections.ConfigDict:
    """`runs/table6.sh`, `runs/table7.sh`."""
    return published.baseline("pseudo_label", "svhn.3@250-5000", consistency_weight=2.0)
