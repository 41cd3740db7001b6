"""ABC over FixMatch on long-tailed CIFAR-10."""

import ml_collections

from configs import published


def get_config() -> ml_collections.ConfigDict:
    """The authors' losses in USB's protocol."""
    return published.long_tailed("abc", "cifar10_lt100.0@1500+3000-0", epochs=256)
