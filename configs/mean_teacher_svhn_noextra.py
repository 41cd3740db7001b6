"""Mean Teacher on SVHN without its extra images."""

import ml_collections

from configs import published


def get_config() -> ml_collections.ConfigDict:
    """`runs/table6.sh`."""
    return published.baseline("mean_teacher", "svhn_noextra.3@250-5000", consistency_weight=150.0)
