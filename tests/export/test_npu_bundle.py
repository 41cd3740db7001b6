"""Tests the contents of bundles, and recipes that cannot be exported as one."""

import importlib
from pathlib import Path

import jax
import numpy as np
import pytest
import tensorflow as tf

from helpers import tensorflow_1_15
from helpers.graphs import require_1_15, run
from helpers.tiny import tiny_config
from helpers.trained_models import write_data
from ssljax import recipe
from ssljax.augment import policies, randaugment
from ssljax.errors import UsageError
from ssljax.export import npu_bundle
from ssljax.storage.files import read_json

RUN_GRAPHS = Path(__file__).parents[1] / "helpers/run_graphs.py"


def graph_of(path):
    return tf.compat.v1.GraphDef.FromString(path.read_bytes())


@pytest.mark.slow
@pytest.mark.parametrize(("repeat", "count"), [(1, 304_394), (4, 1_469_642)])
def test_a_bundle_of_wide_resnet_28_2_has_operations_of_tensorflow_1_15(repeat, count, tmp_path):
    """Also tests WRN-10-2, whose lowering is faster."""
    write_data(tmp_path / "data.npz", size=32, test=20)
    config = importlib.import_module("configs.mixmatch_cifar10_ascend").get_config()
    config.dataset = f"npz:{tmp_path / 'data.npz'}.1@100-20"
    config.model_args.repeat = repeat
    npu_bundle.write(recipe.build(config), tmp_path)
    for name in ("train.pb", "eval.pb"):
        graph = graph_of(tmp_path / name)
        require_1_15(graph)
        assert not [node.op for node in graph.node if "Random" in node.op]
        shapes = [n.attr["shape"].shape for n in graph.node if n.op == "Placeholder"]
        assert all(d.size > 0 for shape in shapes for d in shape.dim)  # static
    assert not (tmp_path / "views.pb").exists()
    with np.load(tmp_path / "weights.npz") as weights:
        assert sum(weights[n].size for n in weights.files if n.startswith("param/")) == count
    with np.load(tmp_path / "data.npz") as data:
        assert data["images"].dtype == np.uint8
        assert (len(data["labeled"]), len(data["valid"]), len(data["unlabeled"])) == (100, 20, 80)
    manifest = read_json(tmp_path / "manifest.json")
    assert manifest["optimizer"]["decay"]["param/Conv_0/kernel"] == 0.02
    assert not manifest["optimizer"]["l2"]
    assert manifest["noise"]["in/noise/lam"] == {"kind": "larger_beta", "beta": 0.5, "size": 192}
    assert manifest["inputs"]["in/labeled"] == {"shape": [64, 32, 32, 3], "dtype": "uint8"}
    assert {"loss/xe", "loss/l2u", "loss/total", "guess/accuracy"} <= set(manifest["metrics"])


def strong_config(strong, recipe_name, directory):
    config = tiny_config("fixmatch")
    config.augment.strong = strong
    config.augment.recipe = recipe_name
    if strong == "randaugment":
        write_data(directory / "data.npz", size=24, test=20)
        config.dataset = f"npz:{directory / 'data.npz'}.1@100-0"
        config.augment.weak = "weak_cifar"
    return config


@pytest.mark.parametrize(
    ("strong", "recipe_name"),
    [
        pytest.param("strong_digits", "cifar", marks=pytest.mark.slow),
        ("randaugment", "cifar"),
        pytest.param("randaugment", "imagenet", marks=pytest.mark.slow),
    ],
)
def test_strong_views_of_the_graph_are_those_of_training(strong, recipe_name, tmp_path):
    npu_bundle.write(recipe.build(strong_config(strong, recipe_name, tmp_path)), tmp_path)
    graph = graph_of(tmp_path / "views.pb")
    require_1_15(graph)
    random = np.random.RandomState(0)
    shapes = {
        node.name: [d.size for d in node.attr["shape"].shape.dim]
        for node in graph.node
        if node.op == "Placeholder"
    }
    uniform = random.uniform(size=shapes["in/uniform"]).astype(np.float32)
    with np.load(tmp_path / "data.npz") as data:
        images = data["images"][: shapes["in/images"][0]]
    if strong == "strong_digits":
        expected = jax.jit(policies.strong_digits_from_uniform)(uniform, images)
    else:
        chosen = randaugment.SEARCH_SPACES[recipe_name]
        expected = jax.jit(
            lambda uniform, images: randaugment.apply(
                images, randaugment.from_uniform(uniform, chosen), chosen
            )
        )(uniform, images)
    arrays = {"in/images": images, "in/uniform": uniform}
    (found,) = run(graph, arrays, ["out/images"])
    assert found.dtype == np.uint8
    assert not np.array_equal(found, images)
    # A product that is rounded differently moves a pixel by one level, or to its neighbour.
    assert np.mean(found != expected) < 0.002
    np.savez(tmp_path / "graphs.npz", **arrays)
    directory = tmp_path / "graphs"
    directory.mkdir()
    (tmp_path / "views.pb").rename(directory / "views.pb")
    (tmp_path / "graphs.npz").rename(directory / "views.npz")
    tensorflow_1_15.run(RUN_GRAPHS, str(directory))
    assert np.mean(np.load(directory / "views.npy") != expected) < 0.002


def test_uniform_numbers_make_the_views_that_keys_make():
    keys = jax.random.split(jax.random.key(0), 6)
    images = np.random.RandomState(0).randint(0, 256, (6, 24, 24, 3)).astype(np.uint8)
    chosen = randaugment.SEARCH_SPACES["cifar"]
    numbers = (randaugment.uniform_numbers(chosen),)
    uniform = jax.vmap(lambda key: jax.random.uniform(key, numbers))(keys)
    draws = randaugment.from_uniform(uniform, chosen)
    np.testing.assert_array_equal(
        randaugment.randaugment(keys, images, space=chosen),
        randaugment.apply(images, draws, chosen),
    )


@pytest.mark.parametrize(
    ("method", "knobs", "message"),
    [
        ("remixmatch", {}, "config.method 'remixmatch' has further heads, which --format=npu_b"),
        ("vat", {}, "the noise of config.method 'vat' is not known to the runner"),
        ("mixmatch", {"method_args.mixmode": "xx.yy"}, "with mixmode 'xx.yy' is not known"),
        ("fixmatch", {"augment.strong": "ctaugment"}, "config.augment.strong 'ctaugment' is not"),
        ("fixmatch", {"augment.weak": "weak_odd"}, "config.augment.weak 'weak_odd' is not known"),
        ("supervised", {"model": "shake_resnet"}, "config.model 'shake_resnet' draws random numb"),
        (
            "supervised",
            {"optimizer.name": "adamw"},
            "config.optimizer.name is 'adamw'; allowed",
        ),
        ("supervised", {"bfloat16": True}, "config.bfloat16 is True; --precision of the runner"),
    ],
)
def test_what_the_runner_cannot_train_is_named(method, knobs, message, tmp_path, monkeypatch):
    monkeypatch.setattr(policies, "weak_odd", policies.weak_digits, raising=False)
    config = tiny_config(method)
    with config.unlocked():
        if "model" in knobs:
            config.model_args = {"filters": 4, "repeat": 1, "scales": 1}
        config.update_from_flattened_dict(knobs)
    experiment = recipe.build(config)
    with pytest.raises(UsageError, match=message):
        npu_bundle.write(experiment, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "method",
    ["mean_teacher", *(pytest.param(x, marks=pytest.mark.slow)
                       for x in ("pseudo_label", "pi_model", "uda"))],
)  # fmt: skip
def test_other_methods_without_noise_are_lowered(method, tmp_path):
    npu_bundle.write(recipe.build(tiny_config(method)), tmp_path)
    require_1_15(graph_of(tmp_path / "train.pb"))
