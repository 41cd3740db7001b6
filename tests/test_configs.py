"""Tests that every recipe of `configs/` names existing things, and sets only what differs."""

import math
import re

import pytest

from ssljax import lookup, overrides, recipe, recipe_files
from ssljax.data import splits

# tests/data/test_streaming.py tests the recipes for ImageNet
RECIPES = [
    name
    for name in recipe_files.shipped()
    if "imagenet" not in name and not name.startswith(("photos", "usb_"))
]


@pytest.mark.parametrize("name", [name for name in RECIPES if not name.endswith("_digits")])
def test_a_recipe_builds_but_for_its_data(name, untraced):
    build_but_for_its_data(name)


@pytest.mark.parametrize("name", [name for name in RECIPES if name.endswith("_digits")])
def test_a_recipe_s_step_can_be_traced(name):
    build_but_for_its_data(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in RECIPES if not name.endswith("_digits")])
def test_a_published_recipe_s_step_can_be_traced(name):
    build_but_for_its_data(name)


# Methods with the same views as FixMatch.
FIXMATCHES = (
    "adamatch", "crest", "dash", "debiaspl", "flexmatch", "freematch", "iomatch", "simmatch",
    "softmatch",
)  # fmt: skip


def build_but_for_its_data(name):
    config = overrides.load(name)
    method, data = config.method, splits.parse(config.dataset).dataset
    assert re.sub("_(ascend|short)$", "", name) == f"{method}_{data}"
    config.dataset = "digits.1@40-100"
    config.model_args.repeat = 1  # tracing the full network takes seconds
    config.augment.weak = "none"
    config.augment.strong = "none"
    assert (
        recipe.build(config).method.views[:3]
        == {
            "supervised": (),
            "self_training": (),  # in its first round
            "mixmatch": ("weak", "weak"),
            "fixmatch": ("weak", "strong"),
            "ict": ("weak",),
            "vat": ("weak",),
            "pseudo_label": ("weak",),
            "pi_model": ("weak", "weak"),
            "mean_teacher": ("weak", "weak"),
            "mixup": ("weak",),
            "uda": ("weak", "strong"),
            "remixmatch": ("none" if data == "stl10" else "weak", "strong", "strong"),
            **dict.fromkeys(FIXMATCHES, ("weak", "strong")),
            "abc": ("weak", "strong", "strong"),
            "comatch": ("weak", "strong", "simclr" if "cifar" in name else "strong"),
        }[method]
    )


SMALL = (
    "dataset=digits.1@40-100", "image_size=0", "init_from=", "augment.weak=none",
    "augment.strong=none",
)  # fmt: skip


@pytest.mark.parametrize(
    ("name", "views", "groups", "trainable"),
    [
        ("photos_cpu", ("weak", "strong"), 18, "head"),
        ("photos_pretrained", ("weak", "strong"), 14, "lora:8"),
        ("usb_cifar100", ("weak", "strong"), 14, "all"),
        ("usb_eurosat", ("weak", "strong"), 14, "all"),
        ("usb_stl10", ("weak", "strong"), 14, "all"),
    ],
)
def test_a_recipe_of_a_pretrained_network_builds_but_for_its_weights_and_data(
    name, views, groups, trainable, untraced
):
    size = 28 if name == "photos_pretrained" else 32
    experiment = recipe.build(overrides.load(name, [*SMALL, f"model_args.resize={size}"]))
    assert experiment.method.views == views
    assert experiment.model.groups == groups
    assert experiment.config["trainable"] == trainable


@pytest.mark.parametrize(
    ("name", "lr", "layer_decay"),
    [("usb_cifar100", 5e-4, 0.5), ("usb_stl10", 1e-4, 0.65), ("usb_eurosat", 5e-5, 1.0)],
)
def test_usb_s_schedules_are_published(name, lr, layer_decay, untraced):
    config = overrides.load(name, [*SMALL, "model_args.resize=32"])
    experiment = recipe.build(config)
    steps = [0, 2560, 5120, 204_800]
    expected = [0, lr / 2, lr, lr * math.cos(7 * math.pi / 16)]
    assert [float(experiment.schedule(k)) for k in steps] == pytest.approx(expected, rel=1e-5)
    assert config.optimizer.layer_decay == layer_decay
    assert (config.batch_size, config.uratio, config.ema_decay) == (8, 1, 0)
    assert (config.num_steps, config.eval_every) == (204_800, 2048)
    assert (config.optimizer.name, config.optimizer.weight_decay) == ("adamw", 5e-4)
    model = experiment.model
    assert (model.variant, model.drop_path) == ("usb", 0.2)
    assert (model.patch, model.width) == ((16, 768) if name == "usb_stl10" else (2, 384))


@pytest.mark.parametrize("data", ["cifar10", "svhn_noextra", "stl10"])
def test_remixmatch_learns_the_published_ctaugment(data, untraced):
    config = overrides.load(f"remixmatch_{data}")
    assert (config.augment.strong, config.augment.recipe) == ("ctaugment", "remixmatch")
    config.dataset = "digits.1@40-100"
    config.augment.weak = "none"
    config.model_args.repeat = 1
    method = recipe.build(config).method
    assert (len(method.views), method.labeled_view) == (5 if data == "stl10" else 9, "strong")


def test_cifar_100_has_the_wide_network():
    for method in ("supervised", "mixmatch", "fixmatch", "flexmatch", "simmatch"):
        config = overrides.load(f"{method}_cifar100")
        assert config.model_args.filters == 128
        assert (config.batch_size, config.num_steps) == (64, 1 << 20)


def test_the_recipes_of_usb_have_its_values():
    for method in ("flexmatch", "freematch", "softmatch", "adamatch", "simmatch"):
        for data, weak, decay in (
            ("cifar10", "weak_cifar", 5e-4),
            ("cifar100", "weak_cifar", 1e-3),
            ("svhn", "weak_cifar", 5e-4),  # mirrored
            ("stl10", "weak_stl10", 5e-4),
        ):
            config = overrides.load(f"{method}_{data}")
            assert (config.augment.weak, config.augment.strong) == (weak, "usb_randaugment")
            optimizer = config.optimizer
            assert (optimizer.name, optimizer.lr, optimizer.weight_decay) == ("sgd", 0.03, decay)
            assert (config.uratio, config.num_steps, config.unlabeled) == (7, 1 << 20, "all")
    assert overrides.load("freematch_svhn").method_args.clip_thresh
    assert overrides.load("comatch_stl10").method_args.contrast_weight == 5


@pytest.mark.parametrize(
    ("data", "weak", "decay"),
    [
        ("cifar10", "weak_cifar", 5e-4),
        ("cifar100", "weak_cifar", 1e-3),
        ("svhn", "weak_cifar", 5e-4),
        ("stl10", "weak_stl10", 5e-4),
    ],
)
@pytest.mark.parametrize("method", ["fixmatch", "freematch"])
def test_usb_s_classic_recipes_compare_methods(data, weak, decay, method, untraced):
    config = overrides.load(f"usb_classic_{data}", [f"method={method}"])
    assert (config.augment.weak, config.augment.strong) == (weak, "usb_randaugment")
    assert (config.optimizer.lr, config.optimizer.weight_decay) == (0.03, decay)
    assert (config.batch_size, config.uratio, config.num_steps) == (64, 7, 1 << 20)
    config.dataset, config.augment.weak, config.augment.strong = "digits.1@40-100", "none", "none"
    experiment = recipe.build(config)
    assert experiment.method.views == ("weak", "strong")
    assert experiment.model.filters == 32


def test_comatch_and_dash_have_their_authors_values():
    config = overrides.load("comatch_cifar10")
    assert (config.augment.strong, config.augment.recipe) == ("randaugment", "comatch")
    assert (config.num_steps, config.unlabeled) == (512 * 1024, "exclude_labeled")
    config = overrides.load("dash_svhn_noextra")
    assert (config.augment.strong, config.optimizer.lr, config.augment.weak) == (
        "ctaugment", 0.06, "weak_svhn"
    )  # fmt: skip


@pytest.mark.parametrize("name", recipe_files.shipped())
def test_a_recipe_says_only_what_differs_from_the_signatures(name):
    config = recipe_files.load_module(recipe_files.recipe_file(name)).get_config()
    for knob in ("method", "model"):
        defaults = lookup.arguments(knob, config[knob])
        said = config[f"{knob}_args"].to_dict()
        assert said.keys() <= defaults.keys()
        assert not [key for key, value in said.items() if value == defaults[key]]


def test_a_recipe_s_summary_is_one_line_that_names_its_data():
    summaries = {name: recipe_files.summary(path) for name, path in recipe_files.shipped().items()}
    assert len(set(summaries.values())) == len(summaries)
    for name, summary in summaries.items():
        assert 10 < len(summary) <= 90
        assert summary.endswith(".")
        data = name.rpartition("_")[2] if name.endswith(("digits", "svhn")) else ""
        assert data in summary.lower()


def test_a_recipe_of_one_s_own_can_set_an_argument_that_ours_leaves_out():
    module = recipe_files.load_module(recipe_files.recipe_file("fixmatch_imagenet"))
    for config in (module.get_config(), overrides.load("fixmatch_digits")):
        config.method_args.weak_pass = "no_grad"
        config.model_args.batch_norm_momentum = 0.9
        with pytest.raises(AttributeError, match="batchsize"):
            config.batchsize = 3
