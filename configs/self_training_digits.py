"""Self-training in three rounds on digits with 40 labels."""

import ml_collections

from configs import digits


def get_config() -> ml_collections.ConfigDict:
    """The supervised baseline's knobs, for a third of its length a round."""
    config = digits.digits("self_training")
    config.unlabeled = "all"
    config.uratio = 7
    config.num_steps = 700
    return config
