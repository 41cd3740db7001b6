"""CReST+ on long-tailed CIFAR-10 with a tenth of its labels."""

import ml_collections

from configs import published


def get_config() -> ml_collections.ConfigDict:
    """The README's command, for γ = 100."""
    return published.crest("cifar10_lt100.1@500+4500-0")
