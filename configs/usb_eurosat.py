"""USB's pretrained ViT-S/2 on EuroSAT with 20 labels.

    ssljax --config=usb_eurosat --config.init_from=vit_small_patch2_32_mlp_im_1k_32.safetensors

reads `eurosat/train/<class>/*`, which USB has as the first 80 % of each class's files in the order
of their names, and `eurosat/test/<class>/*`, the others. Images are resized from 64 to 32 pixels.
"""

import ml_collections

from configs import published


def get_config() -> ml_collections.ConfigDict:
    """`config/usb_cv/*/*_eurosat_20_0.yaml`; its labelled images are drawn in another way."""
    config = published.usb_vit("folder:eurosat.1@20-0", lr=5e-5, layer_decay=1.0)
    config.image_size = 32
    config.labels_per_class = "balanced"
    config.model = "vit_small"
    config.model_args.patch = 2
    config.model_args.mean = (0.5, 0.5, 0.5)
    config.model_args.std = (0.5, 0.5, 0.5)
    config.augment.weak = "weak_eurosat"
    return config
