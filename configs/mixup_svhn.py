"""MixUp on SVHN with its extra images, or (svhn_noextra) without."""

import ml_collections

from configs import published


def get_config() -> ml_collections.ConfigDict:
    """`runs/table6.sh`, `runs/table7.sh`: of labelled and of unlabelled images."""
    return published.baseline("mixup", "svhn.3@250-5000", beta=0.25, use_unlabeled=True)
