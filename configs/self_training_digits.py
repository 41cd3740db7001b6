"""Self-training in three rounds on digits with 40 labels."""

import ml_collections

from configs import digits


def get_config() -> ml_collections.ConfigDict:
    """The supervised baseline's knobs, for a third of its length a round."""
    config = digits.fixmatch_ratio("self_training")
    config.num_steps = 700
    return config
