"""MixMatch on CIFAR-10 with 250 labels and a small network: minutes on a CPU."""

import ml_collections

from configs import short


def get_config() -> ml_collections.ConfigDict:
    """Ours: the published optimizer with a learning rate that falls, half of the batch, and the
    weight of the squared error that `photos.py` has, which rises over the whole run.

    A step sees 32 labelled images and two weak views of 32 unlabelled ones: in 8,000 steps 256,000
    labelled images, 256,000 unlabelled ones, and 768,000 views in all. The network is also passed
    the 512,000 views without a gradient, to guess their labels.
    """
    config = short.cifar10("mixmatch", w_match=40.0, ramp_images=256_000)
    config.optimizer.name = "adam"
    config.optimizer.lr = 0.002
    config.optimizer.weight_decay = 0.02
    return config
