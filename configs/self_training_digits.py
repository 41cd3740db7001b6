"""Self-training in three rounds on digits with 40 labels."""

import ml_collections

from configs import digits


def get_config() -> ml_collections.ConfigDict:
    """The settings of the supervised baseline, whose 2,000 steps each round takes."""
    return digits.fixmatch_ratio("self_training")
