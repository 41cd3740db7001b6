"""FixMatch on CIFAR-10 with 250 labels and a small network: minutes on a CPU."""

import ml_collections

from configs import short


def get_config() -> ml_collections.ConfigDict:
    """Ours: the published threshold and optimizer, a quarter of the batch, and three unlabelled
    images for each labelled one in place of seven.

    A step sees 16 labelled images, and a weak and a strong view of 48 unlabelled ones: in 4,000
    steps 64,000 labelled images, 192,000 unlabelled ones, and 448,000 views in all.
    """
    config = short.cifar10("fixmatch")
    config.batch_size = 16
    config.uratio = 3
    return config
