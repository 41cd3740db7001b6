"""Settings that the recipes for digits share: a small network, a short run and two optimizers."""

import ml_collections

from configs import base


def digits(method: str, **method_args: float | str) -> ml_collections.ConfigDict:
    """A method on 40 labels by SGD: a small network, and averages that fit a short run.

    Args:
      method_args: those that differ from the method's own defaults.
    """
    config = base.get_config()
    config.dataset = "digits.1@40-100"
    config.method = method
    config.method_args = method_args
    config.model_args = dict(filters=16, repeat=1, scales=2, batch_norm_momentum=0.95)
    config.batch_size = 8
    config.num_steps = 2000
    config.optimizer.name = "sgd"
    config.optimizer.lr = 0.03
    config.optimizer.schedule = "cosine"
    config.optimizer.weight_decay = 0.01
    config.ema_decay = 0.99
    config.cpu_devices = 1  # its steps are too short to be shared
    config.log_every = 40
    config.eval_every = 40
    return config


def fixmatch_ratio(method: str, **method_args: float | str) -> ml_collections.ConfigDict:
    """As `digits`, with seven unlabelled images, of all, for each labelled one."""
    config = digits(method, **method_args)
    config.unlabeled = "all"
    config.uratio = 7
    return config


def adam(config: ml_collections.ConfigDict) -> None:
    """Sets what the recipes of the MixMatch paper share: its optimizer, and half of its batch."""
    config.batch_size = 32
    config.optimizer.name = "adam"
    config.optimizer.lr = 0.002
    config.optimizer.schedule = "constant"
    config.optimizer.weight_decay = 0.02
