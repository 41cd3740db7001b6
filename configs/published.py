"""What the published recipes share, data set by data set and method by method.

Sources: the papers, and `runs/*.sh`, `mixmatch.py`, `fixmatch.py` and `fully_supervised/` of
google-research/mixmatch and google-research/fixmatch. `base.py` has the lengths: 2^26 labelled
images, an evaluation every 2^16. An override of the data set's seed and numbers is all that another
published run of the same recipe needs.
"""

import ml_collections

from configs import base

# Data set -> weak view, arguments of the network. 128 filters (WRN-28-8) for CIFAR-100 and four
# scales (WRN-37-2) for STL-10.
_DATA = {
    "cifar10": ("weak_cifar", {}),
    "cifar100": ("weak_cifar", {"filters": 128}),
    "svhn": ("weak_svhn", {}),
    "stl10": ("weak_stl10", {"scales": 4}),
}


def mixmatch(dataset: str, **method_args: float) -> ml_collections.ConfigDict:
    """MixMatch on a published data-set name; `method_args` differ by data set."""
    config = _published(dataset)
    config.method = "mixmatch"
    config.method_args = dict(temperature=0.5, ramp_images=1 << 20, **method_args)
    _adam(config)
    return config


def fixmatch(dataset: str) -> ml_collections.ConfigDict:
    """FixMatch with RandAugment on a published data-set name."""
    config = _published(dataset)
    config.method = "fixmatch"
    config.method_args = dict(threshold=0.95, unlabeled_weight=1.0)
    config.unlabeled = "all"
    config.uratio = 7
    config.optimizer.name = "sgd"
    config.optimizer.lr = 0.03
    config.optimizer.schedule = "cosine"
    config.optimizer.weight_decay = 0.0005
    return config


def supervised(dataset: str) -> ml_collections.ConfigDict:
    """`fully_supervised/fs_baseline.py`, less its label smoothing of 0.001 (SVHN: 0.01)."""
    config = _published(dataset)
    config.method = "supervised"
    config.method_args = dict(view="weak")
    _adam(config)
    return config


def _adam(config: ml_collections.ConfigDict) -> None:
    config.optimizer.name = "adam"
    config.optimizer.lr = 0.002
    config.optimizer.schedule = "constant"
    config.optimizer.weight_decay = 0.02


def _published(dataset: str) -> ml_collections.ConfigDict:
    weak, model_args = _DATA[dataset.partition(".")[0].removesuffix("_noextra")]
    config = base.get_config()
    config.dataset = dataset
    config.augment.weak = weak
    config.augment.strong = "randaugment"
    config.model_args = dict(filters=32, repeat=4) | model_args
    return config
