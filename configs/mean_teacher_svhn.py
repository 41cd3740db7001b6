"""Mean Teacher on SVHN with its extra images."""

import ml_collections

from configs import published


def get_config() -> ml_collections.ConfigDict:
    """`runs/table7.sh`."""
    return published.baseline("mean_teacher", "svhn.3@250-5000", consistency_weight=180.0)
