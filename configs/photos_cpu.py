"""The last layer of a pretrained network on your own photos: minutes on a CPU.

    ssljax --config=photos_cpu --config.dataset=folder:<your folder>.1@100-50

It downloads EfficientNet-Lite0 once (Apache 2.0, 19 MB; needs `pip install -e '.[pretrained]'`),
or `--config.init_from=<file>.safetensors` names its weights. Features are computed once for each
image, about 50 images per second on two cores, and kept; training on them takes seconds.
`--mode=probe` with the same flags comes first: it needs these features too.
"""

import ml_collections

from configs import base


def get_config() -> ml_collections.ConfigDict:
    """Ours: AdaMatch on features, whose views are the images themselves.

    Of the methods that were tried on labelled set 0 of CIFAR-10 with 40 labels, AdaMatch was the
    best one for its time; docs/results.md has five other sets.
    """
    config = base.get_config()
    config.dataset = "folder:photos.1@100-50"
    config.unlabeled = "strict"
    config.image_size = 160
    config.method = "adamatch"
    config.model = "efficientnet_lite0"
    config.init_from = "hf://timm/tf_efficientnet_lite0.in1k"
    config.trainable = "head"
    config.augment.weak = "none"
    config.augment.strong = "none"
    config.batch_size = 32
    config.num_steps = 2000
    config.optimizer.name = "adamw"
    config.optimizer.lr = 0.001
    config.optimizer.schedule = "cosine_to_zero"
    config.optimizer.weight_decay = 0.01
    config.ema_decay = 0.99
    config.log_every = 100
    config.eval_every = 500
    config.keep_checkpoints = 0
    return config
