"""MixMatch on CIFAR-100 with WRN-28-8."""

import ml_collections

from configs import published


def get_config() -> ml_collections.ConfigDict:
    """`runs/table1.sh`, but for its 135 filters: WRN-28-8, as the later papers compare."""
    config = published.mixmatch("cifar100.3@10000-5000", w_match=150.0)
    config.optimizer.weight_decay = 0.04
    return config
