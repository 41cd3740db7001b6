"""Tests that weights under common naming schemes are mapped to the model, or rejected."""

import re
from functools import partial

import numpy as np
import pytest

from helpers import reference_vit as reference
from ssljax.errors import UsageError
from ssljax.models import resnet, vit
from ssljax.pretrained.fit import fit
from ssljax.pretrained.weight_files import Weights

SHAPE = (reference.SIDE, reference.SIDE, 3)
tiny = partial(
    vit.VisionTransformer, num_classes=5, patch=reference.PATCH, width=reference.WIDTH,
    depth=reference.DEPTH, heads=reference.HEADS,
)  # fmt: skip


def fitted(tensors, shape=SHAPE, **options):
    return fit(Weights(tensors, "x.safetensors", ""), tiny(**options), "vit", image_shape=shape)


def same(found, expected):
    assert found.params.keys() == expected.params.keys()
    for path, x in expected.params.items():
        np.testing.assert_array_equal(found.params[path], x, err_msg=path)


def test_the_lines_say_what_matched_what_was_left_out_and_what_is_new():
    tensors = reference.tensors(classes=7) | {"mask_token": np.zeros((1, 1, 12), np.float32)}
    found = fitted(tensors)
    assert found.lines == (
        "starts with the weights of x.safetensors: 30 arrays of 4,452 numbers",
        "left out: mask_token, head.weight, head.bias",
        "randomly initialised: head/bias, head/kernel",
    )
    assert not [path for path in found.params if path.startswith("head")]


def test_a_head_of_as_many_classes_is_taken():
    found = fitted(reference.tensors(classes=5))
    assert found.has_head
    assert found.lines[1:] == ("left out: nothing", "randomly initialised: nothing")


def test_positions_are_resized_and_the_line_says_so():
    found = fitted(reference.tensors(grid=3))
    assert found.params["pos_embed"].shape == (1, 5, reference.WIDTH)
    assert "; positions of 3×3 patches resized to 2×2" in found.lines[0]


@pytest.mark.parametrize("name", ["fc", "mlp.0", "head.2", "classifier"])
def test_heads_of_usb_s_pretraining_are_passed_over(name):
    other = {f"{name}.weight": np.zeros((3, 7), np.float32)}
    found = fitted(reference.tensors() | other)
    assert found.lines[1:] == (
        f"left out: {name}.weight",
        "randomly initialised: head/bias, head/kernel",
    )


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("blocks.1.attn.qkv.weight", "block_1/qkv/kernel"),
        ("norm.bias", "norm/bias"),
        ("cls_token", "cls_token"),
    ],
)
def test_a_dropped_tensor_is_named(name, path):
    tensors = reference.tensors()
    del tensors[name]
    message = f"config.init_from x.safetensors does not .* it lacks {path}; allowed: all"
    with pytest.raises(UsageError, match=message):
        fitted(tensors)


def test_a_renamed_tensor_is_named_by_both_names():
    tensors = reference.tensors()
    tensors["blocks.1.mlp.fc3.weight"] = tensors.pop("blocks.1.mlp.fc2.weight")
    with pytest.raises(UsageError) as error:
        fitted(tensors)
    assert "it lacks block_1/fc2/kernel and it holds blocks.1.mlp.fc3.weight, which" in str(
        error.value
    )


def test_a_wrong_shape_names_both():
    tensors = reference.tensors()
    tensors["blocks.0.mlp.fc1.weight"] = np.zeros((20, 12), np.float32)
    message = re.escape(
        "does not fit config.model 'vit' with variant 'augreg': its blocks.0.mlp.fc1.weight "
        "[20, 12] makes block_0/fc1/kernel [12, 20]; allowed: [12, 48]"
    )
    with pytest.raises(UsageError, match=message):
        fitted(tensors)


def test_another_variant_is_told():
    with pytest.raises(UsageError, match=r"with variant 'augreg': it holds blocks.0.ls1.gamma"):
        fitted(reference.tensors("dinov2"))
    with pytest.raises(UsageError, match="lacks .*norm_pre/"):
        fitted(reference.tensors(), variant="clip")


def test_a_network_without_names_of_others_is_refused():
    model = resnet.resnet18(num_classes=5)
    with pytest.raises(UsageError, match="config.model 'resnet18' cannot load published weights"):
        fit(Weights({}, "x", ""), model, "resnet18", image_shape=SHAPE)


def test_mae_s_norm_of_all_tokens_gives_way_to_a_new_one_of_their_mean():
    found = fitted(reference.tensors(), variant="mae")
    assert found.lines[1] == "left out: norm.weight, norm.bias"
    assert "fc_norm/scale" in found.lines[2]


def test_dinov2_s_position_of_the_class_token_is_added_to_it():
    """DINOv2's files have a separate one; timm's files have already added it."""
    theirs = reference.tensors("dinov2_reg")
    of_class = np.full((1, 1, reference.WIDTH), 0.5, np.float32)
    original = dict(theirs)
    original["pos_embed"] = np.concatenate([of_class, theirs["pos_embed"]], axis=1)
    original["cls_token"] = theirs["cls_token"] - of_class
    original["register_tokens"] = original.pop("reg_token")
    found, expected = (fitted(x, variant="dinov2_reg") for x in (original, theirs))
    np.testing.assert_allclose(
        found.params.pop("cls_token"), expected.params.pop("cls_token"), atol=1e-6
    )
    same(found, expected)


# The same weights under other names.


def open_clip(tensors):
    names = {
        r"cls_token": "visual.class_embedding",
        r"pos_embed": "visual.positional_embedding",
        r"patch_embed\.proj": "visual.conv1",
        r"norm_pre": "visual.ln_pre",
        r"norm\.": "visual.ln_post.",
        r"blocks\.(\d+)\.norm": r"visual.transformer.resblocks.\1.ln_",
        r"blocks\.(\d+)\.attn\.qkv\.": r"visual.transformer.resblocks.\1.attn.in_proj_",
        r"blocks\.(\d+)\.attn\.proj": r"visual.transformer.resblocks.\1.attn.out_proj",
        r"blocks\.(\d+)\.mlp\.fc1": r"visual.transformer.resblocks.\1.mlp.c_fc",
        r"blocks\.(\d+)\.mlp\.fc2": r"visual.transformer.resblocks.\1.mlp.c_proj",
    }
    made = renamed(tensors, names)
    made["visual.class_embedding"] = made["visual.class_embedding"][0, 0]
    made["visual.positional_embedding"] = made["visual.positional_embedding"][0]
    zeros = np.zeros((4, 4), np.float32)
    return made | {
        name: zeros
        for name in ("visual.proj", "text_projection", "logit_scale", "token_embedding.weight",
                     "transformer.resblocks.0.ln_1.weight", "positional_embedding")
    }  # fmt: skip


def transformers_clip(tensors):
    tower = "vision_model.encoder.layers"
    names = {
        r"cls_token": "vision_model.embeddings.class_embedding",
        r"pos_embed": "vision_model.embeddings.position_embedding.weight",
        r"patch_embed\.proj": "vision_model.embeddings.patch_embedding",
        r"norm_pre": "vision_model.pre_layrnorm",
        r"norm\.": "vision_model.post_layernorm.",
        r"blocks\.(\d+)\.norm": rf"{tower}.\1.layer_norm",
        r"blocks\.(\d+)\.attn\.qkv": rf"{tower}.\1.self_attn.QKV_proj",
        r"blocks\.(\d+)\.attn\.proj": rf"{tower}.\1.self_attn.out_proj",
        r"blocks\.(\d+)\.mlp": rf"{tower}.\1.mlp",
    }
    made = separated(renamed(tensors, names), "qkv")
    made["vision_model.embeddings.class_embedding"] = made[
        "vision_model.embeddings.class_embedding"
    ][0, 0]
    position = "vision_model.embeddings.position_embedding.weight"
    return made | {position: made[position][0], "text_model.x": np.zeros(1)}


def transformers_dinov2(tensors):
    names = {
        r"cls_token": "embeddings.cls_token",
        r"pos_embed": "embeddings.position_embeddings",
        r"patch_embed\.proj": "embeddings.patch_embeddings.projection",
        r"norm\.": "layernorm.",
        r"blocks\.(\d+)\.norm": r"encoder.layer.\1.norm",
        r"blocks\.(\d+)\.ls(\d)\.gamma": r"encoder.layer.\1.layer_scale\2.lambda1",
        r"blocks\.(\d+)\.attn\.qkv": r"encoder.layer.\1.attention.attention.QKV",
        r"blocks\.(\d+)\.attn\.proj": r"encoder.layer.\1.attention.output.dense",
        r"blocks\.(\d+)\.mlp": r"encoder.layer.\1.mlp",
    }
    return separated(renamed(tensors, names), ("query", "key", "value"))


def transformers_vit(tensors):
    names = {
        r"cls_token": "vit.embeddings.cls_token",
        r"pos_embed": "vit.embeddings.position_embeddings",
        r"patch_embed\.proj": "vit.embeddings.patch_embeddings.projection",
        r"norm\.": "vit.layernorm.",
        r"blocks\.(\d+)\.norm1": r"vit.encoder.layer.\1.layernorm_before",
        r"blocks\.(\d+)\.norm2": r"vit.encoder.layer.\1.layernorm_after",
        r"blocks\.(\d+)\.attn\.qkv": r"vit.encoder.layer.\1.attention.attention.QKV",
        r"blocks\.(\d+)\.attn\.proj": r"vit.encoder.layer.\1.attention.output.dense",
        r"blocks\.(\d+)\.mlp\.fc1": r"vit.encoder.layer.\1.intermediate.dense",
        r"blocks\.(\d+)\.mlp\.fc2": r"vit.encoder.layer.\1.output.dense",
        r"head": "classifier",
    }
    return separated(renamed(tensors, names), ("query", "key", "value"))


def renamed(tensors, names):
    made = {}
    for name, x in tensors.items():
        pattern = next(p for p in names if re.match(p, name))
        made[re.sub(rf"^{pattern}", names[pattern], name)] = x
    return made


def separated(tensors, parts):
    made = {}
    for name, x in tensors.items():
        if "QKV" in name:
            made |= {
                name.replace("QKV", part): third
                for part, third in zip(parts, np.split(x, 3), strict=True)
            }
        else:
            made[name] = x
    return dict(reversed(made.items()))  # the order in a file is irrelevant


def flax_layers(tensors, attention, norm2, mlp):
    """Returns layers as in Flax: `embedding/kernel`, and one each per query, key and value."""
    width, heads = reference.WIDTH, reference.HEADS
    made = {
        "cls": tensors["cls_token"],
        "embedding/kernel": tensors["patch_embed.proj.weight"].transpose(2, 3, 1, 0),
        "embedding/bias": tensors["patch_embed.proj.bias"],
        "head/kernel": tensors["head.weight"].T,
        "head/bias": tensors["head.bias"],
    }

    def norm(ours, theirs):
        made[f"{theirs}/scale"] = tensors[f"{ours}.weight"]
        made[f"{theirs}/bias"] = tensors[f"{ours}.bias"]

    norm("norm", "Transformer/encoder_norm")
    for i in range(reference.DEPTH):
        block, ours = f"Transformer/encoderblock_{i}", f"blocks.{i}"
        norm(f"{ours}.norm1", f"{block}/LayerNorm_0")
        norm(f"{ours}.norm2", f"{block}/{norm2}")
        weight = tensors[f"{ours}.attn.qkv.weight"].reshape(3, heads, -1, width)
        bias = tensors[f"{ours}.attn.qkv.bias"].reshape(3, heads, -1)
        for j, part in enumerate(("query", "key", "value")):
            made[f"{block}/{attention}/{part}/kernel"] = weight[j].transpose(2, 0, 1)
            made[f"{block}/{attention}/{part}/bias"] = bias[j]
        out = tensors[f"{ours}.attn.proj.weight"].T.reshape(heads, -1, width)
        made[f"{block}/{attention}/out/kernel"] = out
        made[f"{block}/{attention}/out/bias"] = tensors[f"{ours}.attn.proj.bias"]
        for j in (0, 1):
            made[f"{block}/{mlp}/Dense_{j}/kernel"] = tensors[f"{ours}.mlp.fc{j + 1}.weight"].T
            made[f"{block}/{mlp}/Dense_{j}/bias"] = tensors[f"{ours}.mlp.fc{j + 1}.bias"]
    return made


def augreg(tensors):
    made = flax_layers(tensors, "MultiHeadDotProductAttention_1", "LayerNorm_2", "MlpBlock_3")
    made["Transformer/posembed_input/pos_embedding"] = tensors["pos_embed"]
    return made | {"pre_logits/kernel": np.zeros((2, 2)), "pre_logits/bias": np.zeros(2)}


def big_vision(tensors, prefix="params/"):
    made = flax_layers(tensors, "MultiHeadDotProductAttention_0", "LayerNorm_1", "MlpBlock_0")
    made["pos_embedding"] = tensors["pos_embed"]
    return {f"{prefix}{name}": x for name, x in made.items()}


def big_vision_scanned(tensors):
    made = big_vision(tensors, "opt/target/")
    loose = {k: x for k, x in made.items() if "encoderblock" not in k}
    for name in [k for k in made if "encoderblock_0" in k]:
        layers = [made[name.replace("block_0", f"block_{i}")] for i in range(reference.DEPTH)]
        loose[name.replace("block_0", "block")] = np.stack(layers)
    return loose | {"opt/state/step": np.zeros(())}


@pytest.mark.parametrize(
    ("make", "variant"),
    [
        (open_clip, "clip"),
        (transformers_clip, "clip"),
        (transformers_dinov2, "dinov2"),
        (transformers_vit, "augreg"),
        (augreg, "augreg"),
        (big_vision, "augreg"),
        (big_vision_scanned, "augreg"),
    ],
)
def test_weights_under_other_names_are_the_same(make, variant):
    tensors = reference.tensors(variant, classes=5 if variant == "augreg" else None)
    found = fitted(make(tensors), variant=variant)
    same(found, fitted(tensors, variant=variant))


def test_weights_of_our_own_runs_are_fitted_to_images_of_another_size():
    first = fitted(reference.tensors(grid=3), shape=(12, 12, 3))
    again = Weights({**first.params}, "runs/a", "", is_ours=True, step=7)
    found = fit(again, tiny(), "vit", image_shape=SHAPE)
    assert found.params["pos_embed"].shape == (1, 5, reference.WIDTH)
    assert found.lines[0].startswith("starts with the weights of runs/a, step 7: 30 arrays of")
    same(found, fitted(reference.tensors(grid=3)))
