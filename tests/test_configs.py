"""Every recipe of `configs/` names things that exist."""

import importlib
from pathlib import Path

import pytest

from ssljax import recipe
from ssljax.data import splits

RECIPES = sorted(
    path.stem
    for path in (Path(__file__).parents[1] / "configs").glob("*_*.py")
    if "imagenet" not in path.stem  # tests/test_imagenet.py has these
)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_builds_but_for_its_data(name):
    config = importlib.import_module(f"configs.{name}").get_config()
    method, data = config.method, splits.parse(config.dataset).dataset
    assert name.removesuffix("_ascend") == f"{method}_{data}"
    config.dataset = "digits.1@40-100"
    config.model_args.repeat = 1  # tracing the whole network takes seconds
    config.augment.weak = "none"
    config.augment.strong = "none"
    assert (
        recipe.build(config).method.views[:3]
        == {
            "supervised": (),
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
        }[method]
    )


@pytest.mark.parametrize("data", ["cifar10", "svhn_noextra", "stl10"])
def test_remixmatch_learns_the_published_ctaugment(data):
    config = importlib.import_module(f"configs.remixmatch_{data}").get_config()
    assert (config.augment.strong, config.augment.recipe) == ("ctaugment", "remixmatch")
    config.dataset = "digits.1@40-100"
    config.augment.weak = "none"
    config.model_args.repeat = 1
    method = recipe.build(config).method
    assert (len(method.views), method.labeled_view) == (5 if data == "stl10" else 9, "strong")


def test_cifar_100_has_the_wide_network():
    for method in ("supervised", "mixmatch", "fixmatch"):
        config = importlib.import_module(f"configs.{method}_cifar100").get_config()
        assert config.model_args.filters == 128
        assert (config.batch_size, config.num_steps) == (64, 1 << 20)
