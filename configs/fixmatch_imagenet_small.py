"""FixMatch on ImageNet at 64×64, or on any folder of images, for one GPU: ours.

ResNet-18 on images of 64×64, for a single GPU and an hour or two; any images serve, such as
`--config.dataset=folder:<path>.1@<labels>-0` or `tfds:<name>.1@<labels>-0`.
"""

import ml_collections

from configs import imagenet


def get_config() -> ml_collections.ConfigDict:
    """Chosen by reasoning, never tuned: half the ratio's cost, and a length of its own."""
    config = imagenet.fixmatch()
    config.dataset = "imagenet128116.1"
    config.stream = True
    config.image_size = 64
    config.model = "resnet18"
    config.per_worker_batch_size = 64
    config.uratio = 3
    config.num_epochs = 30.0
    config.warmup_epochs = 1.0
    config.decay_epochs = (15, 25)
    # Its ranges are pixels and degrees of large images: the shifts of ±100 pixels leave nothing of
    # these, so the policy is CIFAR's.
    config.augment.recipe = "cifar"
    config.augment.randaugment_num_levels = None
    return config
