"""ABC over FixMatch on long-tailed CIFAR-100 with WRN-28-2."""

import ml_collections

from configs import published


def get_config() -> ml_collections.ConfigDict:
    """The authors' losses in USB's protocol."""
    config = published.long_tailed("abc", "cifar100_lt10.0@150+300-0", epochs=256)
    config.model_args = {}
    return config
