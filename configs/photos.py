"""MixMatch on a folder of your own photos: minutes on a CPU.

    ssljax --config=photos --config.dataset=folder:<your folder>.1@100-50

reads `<your folder>/train/<class>/*` and `<your folder>/unlabeled/**`. On a GPU, larger images, a
larger network and a longer run learn more: `--config.image_size=96 --config.model_args.filters=32
--config.num_steps=20000`.
"""

import ml_collections

from configs import base


def get_config() -> ml_collections.ConfigDict:
    """Ours: small images, a small network, and averages and a ramp that fit the run's length.

    Tuned on 3,000 CIFAR-10 images with 100 labels, where MixMatch had learned more after the same
    time than FixMatch. At the published weight of 75 it gave all images one class in the end.
    """
    config = base.get_config()
    config.dataset = "folder:photos.1@100-50"
    config.unlabeled = "strict"
    config.image_size = 32
    config.method = "mixmatch"
    config.method_args = dict(w_match=40.0, ramp_images=80_000)
    config.model_args = dict(filters=16, repeat=1, batch_norm_momentum=0.99)
    config.augment.weak = "weak_cifar"
    config.augment.strong = "randaugment"
    config.batch_size = 32
    config.uratio = 1
    config.num_steps = 2500
    config.optimizer.name = "adam"
    config.optimizer.lr = 0.002
    config.optimizer.schedule = "cosine"
    config.optimizer.weight_decay = 0.02
    config.ema_decay = 0.995
    config.log_every = 50
    config.eval_every = 250
    return config
