"""VAT on digits with 40 labels."""

import ml_collections

from configs import digits


def get_config() -> ml_collections.ConfigDict:
    """The published method and optimizer.

    ε is shorter as the images are smaller: about the same change a pixel. ξ is one that float32
    resolves.
    """
    config = digits.digits("vat", vat_eps=1.0, xi=1e-3)
    digits.adam(config)
    return config
