"""The Π-model on SVHN with its extra images, or (svhn_noextra) without."""

import ml_collections

from configs import published


def get_config() -> ml_collections.ConfigDict:
    """`runs/table6.sh`, `runs/table7.sh`."""
    return published.baseline(
        "pi_model", "svhn.3@250-5000", weight_decay=0.2, consistency_weight=5.0
    )
