"""Compares models with real weight files to timm's results: tokens, features, logits."""

from functools import partial

import jax
import jax.numpy as jnp
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

from helpers.backbones import reference, relative_difference
from ssljax.augment.ops import to_float
from ssljax.models import efficientnet_lite, vit
from ssljax.pretrained import weight_files
from ssljax.pretrained.fit import fit

small = partial(vit.VisionTransformer, width=48, depth=3, heads=3, patch=8)


def computed(model, path, images):
    """Returns logits, features and intermediates of the model with the weights of a file."""
    shape = images.shape[1:]
    found = fit(weight_files.read(str(path)), model, "vit", image_shape=shape)
    made = jax.jit(lambda: model.init(jax.random.key(0), jnp.zeros((1, *shape)), train=False))()
    flat = [flatten_dict(made.get(x, {}), sep="/") for x in ("params", "batch_stats")]
    params, batch_stats = flat[0] | {**found.params}, flat[1] | {**found.batch_stats}
    variables = {"params": params, "batch_stats": batch_stats}
    variables = {name: unflatten_dict(x, sep="/") for name, x in variables.items()}
    apply = jax.jit(partial(model.apply, train=False, mutable=["intermediates"]))
    (logits, features), tokens = apply(variables, to_float(jnp.asarray(images)))
    return logits, features, tokens


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("vit_augreg_like", {"variant": "augreg"}),
        ("vit_dinov2_reg_like", {"variant": "dinov2_reg", "patch": 7}),
        ("vit_clip_like", {"variant": "clip"}),
        ("vit_mae_like", {"variant": "mae"}),
    ],
)
def test_transformers(name, options):
    path, expected = reference(name)
    model = small(num_classes=7, **options)
    assert model.kind.mean == pytest.approx(expected["mean"])
    assert model.kind.std == pytest.approx(expected["std"])
    logits, features, found = computed(model, path, expected["images"])
    tokens = found["intermediates"]["tokens"][0]
    assert relative_difference(tokens, expected["tokens"]) < 1e-4
    assert relative_difference(features, expected["features"]) < 1e-4
    if "logits" in expected:
        assert relative_difference(logits, expected["logits"]) < 1e-4


@pytest.mark.slow
def test_efficientnet_lite0():
    path, expected = reference("tf_efficientnet_lite0")
    model = efficientnet_lite.efficientnet_lite0(num_classes=1000)
    logits, features, _ = computed(model, path, expected["images"])
    assert relative_difference(features, expected["features"]) < 1e-4
    assert relative_difference(logits, expected["logits"]) < 1e-4
