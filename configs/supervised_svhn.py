"""Labelled SVHN images only: the baseline, with the extra images or (svhn_noextra) without."""

import ml_collections

from configs import published


def get_config() -> ml_collections.ConfigDict:
    """Weak views, Adam with a tenth of the decay."""
    config = published.supervised("svhn.3@250-5000")
    config.optimizer.weight_decay = 0.002
    return config
