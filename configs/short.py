"""Settings that the short recipes for CIFAR-10 share: a small network, and minutes on one core.

They are ssljax's own, and scale the published recipes (`published.py`) down to 8,000 steps: the
learning rate falls over them, and the averages reach back over a part of them.
"""

import ml_collections

from configs import published


def cifar10(method: str, **method_args: float) -> ml_collections.ConfigDict:
    """A method on 250 labels of CIFAR-10, with the published views, by FixMatch's SGD with a
    learning rate of 0.1 in place of 0.03.

    The network has 16, 32 and 64 channels and one residual block for each (WRN-28-2: 32, 64 and
    128, and four). It has 78 thousand weights, and an image costs 25 MFLOP forward.

    500 validation images are for tuning, on labelled set 0 alone. Sets 1, 2 and 3 are reported, by
    the test accuracy of the EMA weights at the last step. All training images but the validation
    ones are unlabelled images, for every method (`strict`).

    Args:
      method_args: those that differ from the method's own defaults.
    """
    config = published.fixmatch("cifar10.1@250-500")
    config.optimizer.lr = 0.1
    config.unlabeled = "strict"
    config.method = method
    config.method_args = method_args
    config.model_args = dict(filters=16, repeat=1, batch_norm_momentum=0.99)
    config.batch_size = 32
    config.uratio = 1
    config.num_steps = 8000
    config.ema_decay = 0.995
    config.cpu_devices = 1  # several runs side by side use several cores better
    config.log_every = 50
    config.eval_every = 500
    config.keep_checkpoints = 1
    return config
