"""Settings that the published recipes share, data set by data set and method by method.

Sources: the papers, and the scripts, their flags' defaults and `runs/` of google-research/mixmatch,
google-research/fixmatch and google-research/remixmatch; for later methods, the repositories that
their functions name, and `config/classic_cv` of USB. `base.py` has the lengths: 2^26 labelled
images, an evaluation every 2^16. An override of the data set's seed and numbers is all that another
published run of the same recipe needs. Methods and networks have the published values as defaults:
only what differs is said here.
"""

from collections.abc import Mapping

import ml_collections

from configs import base

# Data set -> weak view, arguments of the network beside WRN-28-2's, the defaults: 128 filters
# (WRN-28-8) for CIFAR-100 and four scales (WRN-37-2) for STL-10.
_DATA = {
    "cifar10": ("weak_cifar", {}),
    "cifar100": ("weak_cifar", {"filters": 128}),
    "svhn": ("weak_svhn", {}),
    "stl10": ("weak_stl10", {"scales": 4}),
}


def mixmatch(dataset: str, **method_args: float) -> ml_collections.ConfigDict:
    """MixMatch on a published data-set name; `method_args` differ by data set."""
    return baseline("mixmatch", dataset, **method_args)


def baseline(
    method: str, dataset: str, *, weight_decay: float = 0.02, **method_args: float
) -> ml_collections.ConfigDict:
    """A method of the MixMatch paper on a published data-set name; arguments differ by data set.

    The baselines' label smoothing is left out: the flag changes nothing in their code.
    """
    config = _published(dataset, method, **method_args)
    _adam(config)
    config.optimizer.weight_decay = weight_decay
    return config


def remixmatch(dataset: str, **method_args: float | str) -> ml_collections.ConfigDict:
    """ReMixMatch with CTAugment on a published data-set name, but for 40 labels."""
    config = _published(dataset, "remixmatch", **method_args)
    config.augment.strong = "ctaugment"
    config.augment.recipe = "remixmatch"
    config.unlabeled = "all"
    _adam(config)
    return config


def fixmatch(dataset: str) -> ml_collections.ConfigDict:
    """FixMatch with RandAugment on a published data-set name."""
    config = _published(dataset, "fixmatch")
    _sgd(config)
    return config


def uda(dataset: str) -> ml_collections.ConfigDict:
    """UDA with RandAugment on a published data-set name: the defaults of its script's flags."""
    config = _published(dataset, "uda")
    _sgd(config)
    return config


def usb(method: str, dataset: str, **method_args: float | str | bool) -> ml_collections.ConfigDict:
    """A method with USB's classic recipe, which is TorchSSL's, on a published data-set name.

    The recipe is FixMatch's, with USB's RandAugment. USB's WideResNets have no biases in
    convolutions, and its images are scaled by each data set's mean and deviation; ours are not.
    SVHN is with its extra images, and mirrored.
    """
    config = _published(dataset, method, **method_args)
    _sgd(config)
    config.augment.strong = "usb_randaugment"
    if dataset.startswith("cifar100"):
        config.optimizer.weight_decay = 0.001
    if dataset.startswith("svhn"):
        config.augment.weak = "weak_cifar"
    return config


def usb_vit(dataset: str, *, lr: float, layer_decay: float) -> ml_collections.ConfigDict:
    """USB's recipe for pretrained vision transformers (`config/usb_cv`), with FixMatch; a recipe
    adds its network and its views. USB's FlexMatch has a warm-up on STL-10 alone.

    There is no moving average. USB's own weights are on its release v.0.0.0, as pickles; the line
    that refuses one says how it is converted.
    """
    config = base.get_config()
    config.dataset = dataset
    config.method = "fixmatch"
    config.unlabeled = "all"
    config.model_args = dict(variant="usb", drop_path=0.2)
    config.augment.strong = "usb_randaugment"
    config.batch_size = 8
    config.num_steps = 204_800
    config.optimizer.name = "adamw"
    config.optimizer.lr = lr
    config.optimizer.schedule = "cosine"
    config.optimizer.warmup_steps = 5120
    config.optimizer.weight_decay = 0.0005
    config.optimizer.layer_decay = layer_decay
    config.ema_decay = 0.0
    config.eval_every = 2048
    return config


def scaled(levels: tuple[float, ...]) -> tuple[float, ...]:
    """A mean or deviation of channels in 0..255, as networks have it."""
    return tuple(round(level / 255, 4) for level in levels)


def long_tailed(
    method: str, dataset: str, **method_args: float | str | bool
) -> ml_collections.ConfigDict:
    """USB's protocol for uneven classes: a quarter of the length, and twice as many unlabelled."""
    config = usb(method, dataset, **method_args)
    config.unlabeled = "exclude_labeled"
    config.uratio = 2
    config.num_steps = 256 << 10
    return config


def crest(dataset: str) -> ml_collections.ConfigDict:
    """CReST+'s README: six generations of 64 epochs on FixMatch's views."""
    config = _published(dataset, "crest")
    _sgd(config)
    config.uratio = 1
    config.num_steps = 64 << 10
    config.optimizer.cosine_level = 1.0
    return config


def iomatch(dataset: str, **method_args: bool) -> ml_collections.ConfigDict:
    """IOMatch's `config/openset_cv`: USB's recipe, for a quarter of its length, with WRN-28-2."""
    config = usb("iomatch", dataset, **method_args)
    config.model_args = {}
    config.num_steps = 256 << 10
    return config


# SimMatch's arguments in USB's recipes for small images.
SIMMATCH: Mapping[str, float | str] = dict(
    threshold=0.95, unlabeled_weight=1.0, instance_weight=1.0, alignment_steps=32,
    bank_momentum=0.7, teacher="self",
)  # fmt: skip


def simmatch(dataset: str) -> ml_collections.ConfigDict:
    """SimMatch as USB has it for small images; the authors' CIFAR code is not published."""
    return usb("simmatch", dataset, projectors=3, **SIMMATCH)


def usb_comatch(dataset: str, **method_args: float) -> ml_collections.ConfigDict:
    """CoMatch with USB's values and variant."""
    return usb(
        "comatch", dataset, smoothing_from=1024, projectors=3, second_view="strong", variant="usb",
        **method_args,
    )  # fmt: skip


def comatch(dataset: str) -> ml_collections.ConfigDict:
    """CoMatch's `Train_CoMatch.py`: half of FixMatch's length, and its own RandAugment."""
    config = _published(dataset, "comatch")
    _sgd(config)
    config.unlabeled = "exclude_labeled"
    config.num_steps = 512 << 10
    config.augment.recipe = "comatch"
    return config


def dash(dataset: str) -> ml_collections.ConfigDict:
    """Dash's `start_train.sh`: FixMatch with CTAugment and twice the learning rate."""
    config = _published(dataset, "dash")
    _sgd(config)
    config.augment.strong = "ctaugment"
    config.optimizer.lr = 0.06
    return config


def supervised(dataset: str) -> ml_collections.ConfigDict:
    """`fully_supervised/fs_baseline.py`, less its label smoothing of 0.001 (SVHN: 0.01)."""
    return baseline("supervised", dataset)


def _sgd(config: ml_collections.ConfigDict) -> None:
    config.unlabeled = "all"
    config.uratio = 7
    config.optimizer.name = "sgd"
    config.optimizer.lr = 0.03
    config.optimizer.schedule = "cosine"
    config.optimizer.weight_decay = 0.0005


def _adam(config: ml_collections.ConfigDict) -> None:
    config.optimizer.name = "adam"
    config.optimizer.lr = 0.002
    config.optimizer.schedule = "constant"
    config.optimizer.weight_decay = 0.02


def _published(
    dataset: str, method: str, **method_args: float | str | bool
) -> ml_collections.ConfigDict:
    weak, model_args = _DATA[dataset.partition(".")[0].partition("_")[0]]
    config = base.get_config()
    config.dataset = dataset
    config.method = method
    config.method_args = method_args
    config.augment.weak = weak
    config.augment.strong = "randaugment"
    config.model_args = model_args
    return config
