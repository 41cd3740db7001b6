"""ICT on digits with 40 labels."""

import ml_collections

from configs import digits


def get_config() -> ml_collections.ConfigDict:
    """The published method and optimizer; a weight that suits a short run."""
    config = digits.digits("ict", consistency_weight=100.0)
    digits.adam(config)
    return config
