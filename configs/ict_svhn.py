"""ICT on SVHN with its extra images, or (svhn_noextra) without."""

import ml_collections

from configs import published


def get_config() -> ml_collections.ConfigDict:
    """`runs/table6.sh`, `runs/table7.sh`."""
    return published.baseline("ict", "svhn.3@250-5000", beta=0.5, consistency_weight=20.0)
