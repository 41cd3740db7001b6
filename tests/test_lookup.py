"""Tests names outside the package: user-defined methods, models, data sets and views."""

import json
import sys

import numpy as np
import pytest

from ssljax import lookup, overrides, recipe
from ssljax.errors import UsageError
from ssljax.run import loop

MINE = """
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ssljax import losses
from ssljax.augment.augmentation import Augmentation
from ssljax.data.datasets import Dataset
from ssljax.methods.method import Aux, Method, no_noise, no_state
from ssljax.models.wide_resnet import wide_resnet

NUMBER = 3


def half(*, weight: float = 0.5, views=("weak",), must):
    assert must == 7

    def loss(params, ema_params, apply, batch, noise, state, progress):
        logits, batch_stats = apply(params, batch.labeled)
        xe = jnp.mean(losses.cross_entropy(logits, jax.nn.one_hot(batch.labels, 3)))
        return weight * xe, Aux(batch_stats, state, {"loss/xe": xe})

    return Method(views=tuple(views), init=no_state, noise=no_noise, loss=loss)


def no_method():
    return 3


class MLP(nn.Module):
    num_classes: int
    width: int = 8

    @nn.compact
    def __call__(self, images, *, train):
        features = nn.relu(nn.Dense(self.width)(images.reshape(len(images), -1)))
        return nn.Dense(self.num_classes)(features), features


class Normed(nn.Module):
    num_classes: int

    @nn.compact
    def __call__(self, images, *, train):
        features = nn.BatchNorm(use_running_average=not train)(images.reshape(len(images), -1))
        return nn.Dense(self.num_classes)(features), features


def mlp(num_classes, *, width: int = 4):
    return MLP(num_classes, width)


def wide(**options):
    return wide_resnet(**options)


class NoModule:
    def __init__(self, num_classes):
        pass


def stripes(data_dir, where="", labels=3):
    images = np.random.RandomState(0).randint(0, 256, (60, 4, 6, 1)).astype(np.uint8)
    classes = np.arange(60) % 3
    return Dataset(images, classes, images[:12], classes[:12], 3, ("a", "b", "c"))


def plain():
    return stripes("")


def floats():
    return plain()._replace(images=np.zeros((60, 4, 6, 1)))


def too_many():
    return plain()._replace(num_classes=2, class_names=("a", "b"))


def misnamed():
    return plain()._replace(class_names=("a", "b"))


def no_dataset():
    return np.zeros(3)


def dark(keys, images):
    return images // 2


def grey(keys, images):
    return images / 2


class Unpaired(MLP):
    @nn.compact
    def __call__(self, images, *, train):
        return nn.Dense(self.num_classes)(images.reshape(len(images), -1))


class Narrow(MLP):
    @nn.compact
    def __call__(self, images, *, train):
        features = images.reshape(len(images), -1)
        return nn.Dense(7)(features), features


class Broken(MLP):
    @nn.compact
    def __call__(self, images, *, train):
        return images.nope


def unpaired(loss):
    return Method(views=("weak",), init=no_state, noise=no_noise, loss=loss)


def number():
    return unpaired(lambda *args: 3)


def vector():
    def loss(params, ema_params, apply, batch, noise, state, progress):
        logits, batch_stats = apply(params, batch.labeled)
        return jnp.mean(logits), Aux(batch_stats, state, {"logits": logits})

    return unpaired(loss)


def broken():
    def loss(params, ema_params, apply, batch, noise, state, progress):
        return nope

    return unpaired(loss)


def fails():
    raise KeyError("x")


def three(weak):
    return Augmentation(lambda state: {"weak": weak, "strong": dark, "dark": dark}, lambda x: {})


def no_augmentation(weak, recipe):
    return weak
"""
ALL = [
    "method=my_pkg.mine.half", "method_args.must=7", "model=my_pkg.mine.MLP",
    "dataset=my_pkg.mine.plain.1@12-6", "augment.weak=my_pkg.mine.dark",
    "augment.strong=my_pkg.mine.dark", "cpu_devices=0",
]  # fmt: skip


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A current directory with a user package that no other test has imported."""
    (tmp_path / "my_pkg").mkdir()
    (tmp_path / "my_pkg" / "__init__.py").touch()
    (tmp_path / "my_pkg" / "mine.py").write_text(MINE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*sys.path])
    forget = [name for name in sys.modules if name.partition(".")[0] == "my_pkg"]
    for name in forget:
        monkeypatch.delitem(sys.modules, name)
    return tmp_path


def load(*more):
    return overrides.load("fixmatch_digits", ["num_steps=2", "log_every=2", "eval_every=2", *more])


def test_all_parts_of_a_run_can_be_one_s_own(folder):
    config = load(*ALL, "method_args.weight=0.25", "method_args.views=('weak','strong')")
    assert config.method_args.to_dict() == {"weight": 0.25, "views": ("weak", "strong"), "must": 7}
    assert config.model_args.to_dict() == {"width": 8}  # none of the recipe's arguments
    experiment = recipe.build(config)
    assert experiment.dataset.image_shape == (4, 6, 1)
    assert len(experiment.split.labeled) == 12
    loop.train(experiment, folder / "run")
    (row,) = map(json.loads, (folder / "run" / "metrics.jsonl").read_text().splitlines())
    assert row["loss/total"] == pytest.approx(0.25 * row["loss/xe"], rel=1e-5)
    recorded = json.loads((folder / "run" / "config.json").read_text())
    assert recorded["model_args"] == {"width": 8}
    loop.train(recipe.build(config), folder / "run")  # the same run is accepted


def test_a_function_makes_a_network_too(folder):
    config = load("model=my_pkg.mine.mlp")
    assert config.model_args.to_dict() == {"width": 4}
    assert recipe.build(load("model=my_pkg.mine.mlp", "model_args.width=16")).model.width == 16


def test_a_function_that_takes_anything_is_given_what_a_network_here_is_given(folder):
    config = load("model=my_pkg.mine.wide")
    assert not config.model_args.to_dict()
    with config.unlocked():
        config.model_args = dict(filters=4, scales=1, repeat=1)
    model = recipe.build(config).model
    assert (model.filters, model.axis_name) == (4, "devices")


def test_statistics_that_devices_do_not_share_are_refused(folder):
    with pytest.raises(
        UsageError, match=r"config\.sync_bn is True for 4 devices; allowed .* False"
    ):
        recipe.build(load("model=my_pkg.mine.Normed"))
    assert recipe.build(load("model=my_pkg.mine.Normed", "sync_bn=false"))
    assert recipe.build(load("model=my_pkg.mine.Normed"), max_devices=1)


def test_a_module_is_found_on_the_path_and_beside_the_current_folder(folder, monkeypatch, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "other_place.py").write_text("def f(): pass")
    monkeypatch.syspath_prepend(tmp_path / "elsewhere")
    assert lookup.find_dotted("config.method", "other_place.f").__name__ == "f"
    assert lookup.find_dotted("config.method", "my_pkg.mine.half").__name__ == "half"


def test_the_current_folder_is_on_the_path_only_while_a_name_is_imported(folder):
    (folder / "looks.py").write_text("import sys\nPATH = [*sys.path]\ndef f(): pass\n")
    before = [*sys.path]
    assert lookup.find_dotted("config.method", "looks.f").__name__ == "f"
    assert [*before, str(folder)] == sys.modules.pop("looks").PATH
    assert sys.path == before


def test_an_augmentation_of_one_s_own_offers_more_views(folder):
    chosen = [*ALL, "augment.strong=my_pkg.mine.three", "method_args.views=('dark','none')"]
    assert recipe.build(load(*chosen)).method.views == ("dark", "none")
    with pytest.raises(UsageError, match="the view 'darker'; config.augment has: dark, none, si"):
        recipe.build(load(*chosen, "method_args.views=('darker',)"))


M = "my_pkg.mine"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("method=nowhere.f", "config.method 'nowhere.f' cannot be imported: ModuleNotFoundError: "
         "No module named 'nowhere'"),
        (f"method={M}.halv", "config.method 'my_pkg.mine.halv' does not exist: my_pkg.mine has no "
         "halv; near it: half"),
        (f"method={M}.NUMBER", "'my_pkg.mine.NUMBER' is a int; allowed: functions, classes"),
        (f"method={M}.no_method", "'my_pkg.mine.no_method' returned a int; allowed: "
         "ssljax.methods.method.Method"),
        (f"method={M}.half", "missing 1 required keyword-only argument: 'must'"),
        ("method=.f", "config.method is '.f'; allowed: a name, or <module>.<name>"),
        ("method=my_pkg.broken.f", "my_pkg/broken.py, line 2: ZeroDivisionError: division by zero"),
        ("method=my_pkg.typo.f", "my_pkg/typo.py, line 1: SyntaxError: "),
        (f"model={M}.NoModule", "'my_pkg.mine.NoModule' returned a NoModule; allowed: flax.linen"),
        (f"model={M}.Unpaired", "config.model 'my_pkg.mine.Unpaired' returns float32 [2, 10] of 2 "
         "images; allowed: a pair, logits [2, 10] and features [2, <any number>]"),
        (f"model={M}.Narrow", "returns ('float32 [2, 7]', 'float32 [2, 64]') of 2 images; allowed"),
        (f"model={M}.Broken", "config.model 'my_pkg.mine.Broken': "),
        (f"method={M}.number", "config.method 'my_pkg.mine.number': the loss returned (int, "),
        (f"method={M}.vector", "the loss's log 'logits' has the shape ["),
        (f"method={M}.broken", "config.method 'my_pkg.mine.broken': "),
        (f"method={M}.broken", "NameError: name 'nope' is not defined"),
        (f"method={M}.fails", "config.method_args: "),
        (f"dataset={M}.no_dataset.1@4-0", "'my_pkg.mine.no_dataset' returned a ndarray; allowed: "
         "ssljax.data.datasets.Dataset"),
        (f"dataset={M}.floats.1@4-0", "'my_pkg.mine.floats' has images float64 [60, 4, 6, 1] with"),
        (f"dataset={M}.too_many.1@4-0", "has labels 0 to 2 of images; allowed: -1 to 1"),
        (f"dataset={M}.misnamed.1@4-0", "has 2 class_names; allowed: 3, its num_classes"),
        (f"dataset={M}.plain:x.1@4-0", "names 'my_pkg.mine.plain:x'; allowed: my_pkg.mine.plain"),
        (f"dataset={M}.nope.1@4-0", "config.dataset 'my_pkg.mine.nope' does not exist: "),
        (f"augment.weak={M}.grey", "config.augment.weak 'my_pkg.mine.grey' makes float32 "
         "[2, 8, 8, 1] of uint8 [2, 8, 8, 1]; allowed: the same"),
        (f"augment.strong={M}.no_augmentation", "returned a function; allowed: "
         "ssljax.augment.augmentation.Augmentation"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_name_is_said_in_one_line(folder, override, message):
    (folder / "my_pkg" / "broken.py").write_text("x = 1\nx / 0\n")
    (folder / "my_pkg" / "typo.py").write_text("def f(:\n")
    with pytest.raises(UsageError) as caught:
        recipe.build(load(override))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_bfloat16_needs_a_network_that_has_a_dtype(folder):
    with pytest.raises(UsageError, match="bfloat16 is True; allowed for config.model 'my_pkg.mi"):
        recipe.build(load(f"model={M}.MLP", "bfloat16=true"))


def test_arguments_of_a_recipe_s_other_network_are_refused_with_the_way_out(folder):
    config = overrides.load("fixmatch_digits")
    config.model = f"{M}.MLP"
    with pytest.raises(UsageError) as caught:
        recipe.build(config)
    assert str(caught.value) == (
        "config.model_args.batch_norm_momentum is not an argument of config.model 'my_pkg.mine.MLP'"
        "; allowed: width; a recipe for another model sets it: replace config.model_args in your "
        "recipe"
    )


def test_a_view_sees_its_images_as_integers(folder):
    augmentation = recipe.build(load(*ALL)).augmentation
    views = augmentation.views(augmentation.init())
    seen = views["weak"](None, np.full((1, 4, 6, 1), 8, np.uint8))
    assert seen.dtype == np.uint8
    assert seen.max() == 4
