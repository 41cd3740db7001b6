from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

import ssljax.methods
from helpers import reference_vit as reference
from helpers.backbones import FOLDER, relative_difference
from helpers.tiny import tiny_vit
from ssljax import recipe
from ssljax.augment.ops import to_float
from ssljax.lookup import modules_of
from ssljax.models import layers, vit, vit_keys
from ssljax.pretrained.fit import fit
from ssljax.pretrained.weight_files import Weights

SHAPE = (reference.SIDE, reference.SIDE, 3)
tiny = partial(
    vit.VisionTransformer, num_classes=5, patch=reference.PATCH, width=reference.WIDTH,
    depth=reference.DEPTH, heads=reference.HEADS,
)  # fmt: skip


def with_weights(model, tensors, shape=SHAPE):
    """Returns the model's variables with the tensors loaded."""
    variables = jax.jit(lambda: model.init(jax.random.key(0), jnp.zeros((1, *shape)), train=False))
    made = variables()
    found = fit(Weights(tensors, "weights", ""), model, "vit", image_shape=shape)
    params = flatten_dict(made["params"], sep="/") | {**found.params}
    return {"params": unflatten_dict(params, sep="/")}


def computed(model, variables, images):
    """Returns tokens, features and logits."""
    apply = jax.jit(partial(model.apply, train=False, mutable=["intermediates"]))
    (logits, features), found = apply(variables, to_float(jnp.asarray(images)))
    return found["intermediates"]["tokens"][0], features, logits


@pytest.mark.parametrize(
    "variant",
    [
        "augreg", "dinov2_reg", "clip", "mae",
        *(pytest.param(x, marks=pytest.mark.slow) for x in ("dinov2", "openclip", "usb")),
    ],
)  # fmt: skip
def test_each_variant_computes_what_timm_s_network_does(variant):
    model = tiny(variant=variant)
    tensors = reference.tensors(variant, classes=5)
    images = np.random.RandomState(1).randint(0, 256, (3, *SHAPE), np.uint8)
    kind = model.kind
    expected = reference.forward(tensors, images, variant, kind.mean, kind.std)
    found = computed(model, with_weights(model, tensors), images)
    for ours, theirs in zip(found, expected, strict=True):
        assert relative_difference(ours, theirs) < 1e-5


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("vit_tiny", 5_717_416),
        ("vit_small", 22_050_664),
        ("vit_base", 86_567_656),
        ("vit_large", 304_326_632),
    ],
)
def test_parameter_counts(name, count):
    assert parameters(getattr(vit, name)(num_classes=1000)) == count


def test_parameter_counts_of_variants():
    """The variants are timm's vit_small_patch14_reg4_dinov2 at 518 pixels and
    vit_base_patch16_clip_224."""
    assert parameters(vit.vit_small(num_classes=1, patch=14, variant="dinov2_reg"), 518) == (
        22_057_344 + 385
    )
    assert parameters(vit.vit_base(num_classes=1, variant="clip")) == 85_799_424 + 769


def parameters(model, side=224):
    images = jnp.zeros((1, side, side, 3))
    made = jax.eval_shape(lambda: model.init(jax.random.key(0), images, train=False))
    return sum(x.size for x in jax.tree.leaves(made["params"]))


def test_positions_are_resized_as_timm_does():
    path = FOLDER / "pos_embed_resized.npz"
    if not path.exists():
        pytest.skip(f"{path} is not there")
    file = np.load(path)
    found = vit_keys._resized(file["old"], 1, (6, 6))
    np.testing.assert_allclose(found, file["new"], atol=1e-5)


def test_positions_keep_what_is_smooth_and_know_height_from_width():
    rows, columns = np.mgrid[:8, :8] / 8 + 1 / 16
    position = np.stack([rows, columns], axis=-1).reshape(1, 64, 2).astype(np.float32)
    found = vit_keys._resized(position, 0, (4, 16)).reshape(4, 16, 2)
    np.testing.assert_allclose(found[1:-1, 2, 0], (np.arange(1, 3) + 0.5) / 4, atol=0.01)
    np.testing.assert_allclose(found[1, 3:-3, 1], (np.arange(3, 13) + 0.5) / 16, atol=0.01)


def test_images_of_another_size_and_of_one_channel():
    model = tiny()
    variables = with_weights(model, reference.tensors(classes=5), (16, 12, 1))
    assert variables["params"]["pos_embed"].shape == (1, 1 + 4 * 3, reference.WIDTH)
    grey = np.random.RandomState(0).randint(0, 256, (2, 16, 12, 1), np.uint8)
    _, features, logits = computed(model, variables, grey)
    _, same, _ = computed(model, variables, np.repeat(grey, 3, axis=3))
    np.testing.assert_allclose(features, same, atol=1e-6)
    assert logits.shape == (2, 5)


def test_a_size_that_patches_do_not_divide_is_refused():
    with pytest.raises(ValueError, match="images of 10×8; allowed: multiples of its patch, 4"):
        tiny().init(jax.random.key(0), jnp.zeros((1, 10, 8, 3)), train=False)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"variant": "swin"}, "variant is 'swin'; allowed: augreg, dinov2"),
        ({"heads": 5}, "heads is 5; allowed: divisors of width, 12"),
        ({"resize": -1}, "resize is -1; allowed: from 0 to 16384"),
        ({"drop_path": 1.5}, "drop_path is 1.5; allowed: from 0 to 0.99"),
        ({"mean": (0.5,)}, r"mean is \(0.5,\) and std \(\); allowed: three numbers each"),
    ],
)
def test_arguments_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        tiny(**options)


def test_bfloat16_computes_in_it_and_keeps_float32_weights():
    images = jnp.zeros((1, *SHAPE))
    (logits, _), variables = jax.eval_shape(
        lambda: tiny(dtype=jnp.bfloat16, variant="dinov2_reg").init_with_output(
            jax.random.key(0), images, train=False, capture_intermediates=True
        )
    )
    assert logits.dtype == jnp.float32
    assert {x.dtype for x in jax.tree.leaves(variables["params"])} == {jnp.dtype("float32")}
    assert variables["intermediates"]["block_1"]["__call__"][0].dtype == jnp.bfloat16


@pytest.mark.slow
def test_rematerialised_blocks_compute_the_same_with_the_same_gradient():
    variables = with_weights(tiny(), reference.tensors(classes=5))
    images = to_float(jnp.asarray(np.random.RandomState(0).randint(0, 256, (2, *SHAPE), np.uint8)))
    keys = jax.random.split(jax.random.PRNGKey(3), 2)

    def gradient(model):
        def loss(variables):
            return jnp.sum(model.apply(variables, images, train=True, keys=keys)[0] ** 2)

        return jax.jit(jax.value_and_grad(loss))(variables)

    plain, again = (gradient(tiny(drop_path=0.5, remat=remat)) for remat in (False, True))
    jax.tree.map(partial(np.testing.assert_allclose, rtol=2e-4, atol=1e-4), plain, again)


def test_drop_path_drops_what_whole_blocks_add_image_by_image():
    keys = jax.random.split(jax.random.PRNGKey(0), 1000)
    x = jnp.ones((1000, 2, 3))
    found = np.asarray(layers.drop_path(keys, x, 0.25))
    assert ((found == 0).all(axis=(1, 2)) | np.isclose(found, 1 / 0.75).all(axis=(1, 2))).all()
    assert (found == 0).mean() == pytest.approx(0.25, abs=0.05)
    # The mask of an image depends only on its key, not on the other images.
    np.testing.assert_array_equal(layers.drop_path(keys[500:], x[500:], 0.25), found[500:])


def test_dropping_needs_keys_while_training_and_none_in_evaluation():
    model = tiny(drop_path=0.9, dropout=0.5)
    variables = with_weights(model, reference.tensors(classes=5))
    images = jnp.zeros((4, *SHAPE))
    with pytest.raises(ValueError, match="drop_path and dropout need keys"):
        model.apply(variables, images, train=True)
    keys = jax.random.split(jax.random.PRNGKey(0), 4)
    plain, _ = model.apply(variables, images, train=False, keys=keys)
    dropped, _ = model.apply(variables, images, train=True, keys=keys)
    np.testing.assert_allclose(plain, np.tile(plain[:1], (4, 1)), rtol=1e-6)
    assert len({row.tobytes() for row in np.asarray(dropped)}) == 4
    # If all but the head is frozen, only the head's dropout remains.
    frozen = tiny(drop_path=0.9, frozen=reference.DEPTH + 1)
    still, _ = frozen.apply(variables, images, train=True, keys=keys)
    np.testing.assert_allclose(still, plain, rtol=1e-6)


def test_groups_are_usb_s():
    """The groups are the embeddings, each block, the last norm with the last block, the head."""
    model = vit.vit_small(num_classes=10)
    images = jnp.zeros((1, 32, 32, 3))
    made = jax.eval_shape(lambda: model.init(jax.random.key(0), images, train=False))
    found = {name: model.group(name) for name in made["params"]}
    blocks = {f"block_{i}": i + 1 for i in range(12)}
    stem = {"cls_token": 0, "pos_embed": 0, "patch_embed": 0}
    assert found == stem | blocks | {"norm": 12, "head": 13}
    assert model.groups == 14


def test_heads_are_drawn_as_their_variant_says():
    for variant, spread in (("usb", 1 / 12**0.5 / 3**0.5), ("augreg", 0.02)):
        model = tiny(num_classes=400, variant=variant, depth=1)
        images = jnp.zeros((1, *SHAPE))
        made = jax.jit(lambda m=model, x=images: m.init(jax.random.key(0), x, train=False))()
        head = made["params"]["head"]
        assert np.std(head["kernel"]) == pytest.approx(spread, rel=0.05)
        assert (np.abs(head["bias"]).max() > 0) == (variant == "usb")


METHODS = [x.__name__.rpartition(".")[2] for x in modules_of(ssljax.methods, without=["method"])]


@pytest.mark.parametrize(
    "method",
    [
        "fixmatch",
        *(pytest.param(x, marks=pytest.mark.slow) for x in METHODS if x != "fixmatch"),
    ],
)
def test_a_step_of_each_method_can_be_traced(method):
    """A network without BatchNorm, of which a part is trained."""
    config = tiny_vit(method, drop_path=0.2)
    config.trainable = "lora:2"
    state = recipe.build(config, max_devices=1).shapes["state"]
    assert not state.batch_stats
    assert {*state.params} >= {"block_0", "block_1", "head"}
