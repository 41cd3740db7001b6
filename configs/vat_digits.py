"""VAT on digits with 40 labels."""

import ml_collections

from configs import base, supervised_digits


def get_config() -> ml_collections.ConfigDict:
    """The published method and optimizer.

    ε is shorter as the images are smaller: about the same change a pixel. ξ is one that float32
    resolves.
    """
    config = supervised_digits.digits(base.get_config())
    config.method = "vat"
    config.method_args = dict(vat_weight=0.3, vat_eps=1.0, entmin_weight=0.06, xi=1e-3)
    supervised_digits.adam(config)
    return config
