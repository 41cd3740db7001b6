"""Settings that the recipes for ImageNet share, with the published names.

Sources: the defaults in `training.py` and `fixmatch.py` of google-research/fixmatch, directory
imagenet; docs/from_fixmatch_tf.md has each of its flags. A knob that is only another name of one in
`base.py` is tied to it: either can be set.
"""

import ml_collections
from ml_collections.config_dict import placeholder

from configs import base
from ssljax import defaults


def published() -> ml_collections.ConfigDict:
    """ResNet-50 on images of 224×224; recipes fill in the method and the lengths."""
    config = base.get_config().unlock()
    config.image_size = 224
    config.unlabeled = "all"
    config.model = "resnet50"
    config.bfloat16 = True
    config.sync_bn = False
    config.ema_batch_stats = True
    config.per_worker_batch_size = 128  # the script's default
    config.eval_batch_size = 256
    config.num_epochs = 300.0
    config.uratio = 5
    # Steps between evaluations.
    config.steps_per_run = 1000
    config.eval_every = config.get_ref("steps_per_run")
    config.log_every = 100
    config.keep_checkpoints = 2

    config.optimizer.name = "keras_sgd"
    config.optimizer.lr = 0.1
    config.optimizer.lr_batch_size = 256
    config.optimizer.schedule = "staircase"
    config.optimizer.weight_decay = 0.0003
    config.optimizer.warmup_epochs = 5.0
    config.optimizer.decay_epochs = (50,)
    for name, knob in {
        "base_lr": "lr",
        "weight_decay": "weight_decay",
        "warmup_epochs": "warmup_epochs",
        "decay_epochs": "decay_epochs",
    }.items():
        config[name] = config.optimizer.get_ref(knob)

    # The host crops and flips; see ssljax/data/streaming.py. The strong view comes after that.
    config.augment.weak = "none"
    config.augment.recipe = "imagenet"
    config.augment.strong = "noop"
    config.augment.type = config.augment.get_ref("strong")  # or horizontal_flip, randaugment, cta
    config.augment.randaugment_num_layers = 2
    config.augment.randaugment_prob_to_apply = 0.5
    config.augment.randaugment_magnitude = placeholder(float)  # None: drawn
    config.augment.randaugment_num_levels = 10
    config.augment.cta_num_layers = 2
    config.augment.cta_confidence_threshold = 0.85
    config.augment.cta_decay = 0.99
    config.augment.cta_epsilon = 0.001
    config.augment.cta_prob_to_apply = 0.5
    config.augment.cta_num_levels = 15
    return defaults.lock(config)


def fixmatch() -> ml_collections.ConfigDict:
    """FixMatch with RandAugment on 10 % of the labels, at the published command's length."""
    config = published().unlock()
    config.dataset = "imagenet128116.1"
    # Of the README's commands for TPUs, and what a v5e has room for: docs/from_fixmatch_tf.md.
    config.per_worker_batch_size = 32
    config.method = "fixmatch"
    config.wu, config.confidence = 10.0, 0.7
    config.method_args.unlabeled_weight = config.get_ref("wu")
    config.method_args.threshold = config.get_ref("confidence")
    config.num_epochs = 3000.0
    config.warmup_epochs = 50.0
    config.decay_epochs = (500,)
    config.augment.strong = "randaugment"
    return defaults.lock(config)
