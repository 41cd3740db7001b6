"""USB's pretrained ViT-S/2 on CIFAR-100 with 200 labels.

    ssljax --config=usb_cifar100 --config.init_from=vit_small_patch2_32_mlp_im_1k_32.safetensors

`--config.method=freematch` and others are compared on the same recipe.
"""

import ml_collections

from configs import published


def get_config() -> ml_collections.ConfigDict:
    """`config/usb_cv/*/*_cifar100_200_0.yaml`; its labelled images are drawn in another way."""
    config = published.usb_vit("cifar100.1@200-0", lr=5e-4, layer_decay=0.5)
    config.model = "vit_small"
    config.model_args.patch = 2
    config.model_args.mean = published.scaled((129.3, 124.1, 112.4))
    config.model_args.std = published.scaled((68.2, 65.4, 70.4))
    config.augment.weak = "weak_cifar"
    return config
