"""A pretrained vision transformer on your own photos: an hour on a GPU.

    ssljax --config=photos_pretrained --config.dataset=folder:<your folder>.1@100-50

It downloads DINOv2's ViT-S/14 once (Apache 2.0, 88 MB; needs `pip install -e '.[pretrained]'`).
`--mode=probe` with the same flags says first, in minutes, what its features alone are worth, and
`--config=photos_cpu` trains on features without a GPU.
"""

import ml_collections

from configs import base


def get_config() -> ml_collections.ConfigDict:
    """Ours: updates of low rank, as V-PET finds for few labels, and FixMatch at 224 pixels."""
    config = base.get_config()
    config.dataset = "folder:photos.1@100-50"
    config.unlabeled = "strict"
    config.image_size = 224
    config.method = "fixmatch"
    config.method_args = dict(threshold=0.8)
    config.model = "vit_small"
    config.model_args = dict(patch=14, variant="dinov2_reg", drop_path=0.1)
    config.init_from = "hf://timm/vit_small_patch14_reg4_dinov2.lvd142m"
    config.trainable = "lora:8"
    config.bfloat16 = True
    config.augment.weak = "weak_photos"
    config.augment.strong = "usb_randaugment"
    config.batch_size = 16
    config.uratio = 3
    config.num_steps = 4000
    config.optimizer.name = "adamw"
    config.optimizer.lr = 0.0005
    config.optimizer.schedule = "cosine_to_zero"
    config.optimizer.warmup_steps = 200
    config.optimizer.weight_decay = 0.01
    config.optimizer.clip_norm = 1.0
    config.ema_decay = 0.995
    config.log_every = 50
    config.eval_every = 500
    config.keep_checkpoints = 2
    return config
