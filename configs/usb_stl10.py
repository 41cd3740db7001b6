"""USB's ViT-B/16 of MAE on STL-10 with 40 labels.

    ssljax --config=usb_stl10 --config.init_from=mae_pretrain_vit_base.safetensors

Its positions are resized from 14×14 to 6×6 patches with antialiasing, as timm does; USB has none.
"""

import ml_collections

from configs import published


def get_config() -> ml_collections.ConfigDict:
    """`config/usb_cv/*/*_stl10_40_0.yaml`; its labelled images are drawn in another way."""
    config = published.usb_vit("stl10.1@40-0", lr=1e-4, layer_decay=0.65)
    config.model = "vit_base"
    config.model_args.mean = published.scaled((112.4, 109.1, 98.6))
    config.model_args.std = published.scaled((68.4, 66.6, 68.5))
    config.augment.weak = "weak_stl10"
    return config
