"""The names and layouts of published weights of vision transformers.

timm and DINOv2 have one layout, OpenAI and OpenCLIP another, Hugging Face's transformers (ViT,
DINOv2, CLIP) a third, and AugReg and big_vision that of Flax. In our models, queries, keys and
values are one layer.
"""

import math
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from ssljax.models import key_maps
from ssljax.models.key_maps import Rule, hwio, torch_layer, torch_norm, transposed

_FLAX_PREFIXES = ("", "opt/target/", "params/", "params/img/")


def translate(tensors: key_maps.Tensors) -> key_maps.Translated:
    """Converts tensors in any of these layouts to the parameters of `vit.py`."""
    flax = next((p for p in _FLAX_PREFIXES if f"{p}embedding/kernel" in tensors), None)
    if flax is not None:
        tensors = {k.removeprefix(flax): x for k, x in tensors.items() if k.startswith(flax)}
        tensors = key_maps.unstacked(tensors, "Transformer/encoderblock(?=/)")
    return key_maps.translate(tensors, _TORCH if flax is None else _FLAX)


def adapt(
    found: key_maps.Translated, grid: tuple[int, int], *, class_position: bool, mean_pool: bool
) -> key_maps.Translated:
    """Adapts parameters to a network with these details.

    Args:
      grid: number of patches in height and width; positions are resized to it.
      class_position: whether the class token has a position.
      mean_pool: whether features are the mean of the patches, which has a separate norm.
    """
    params, notes = _with_positions(found.params, grid, class_position)
    # MAE's fine-tuning initialises a new norm of the mean, instead of the norm of all tokens.
    remade = ("fc_norm/",) if mean_pool and "norm/scale" in params else ()
    return found._replace(
        params=params,
        notes=notes,
        may_be_new=remade,
        may_be_left=("norm/",) if mean_pool else (),
    )


def _with_positions(
    params: Mapping[str, np.ndarray], grid: tuple[int, int], class_position: bool
) -> tuple[dict[str, np.ndarray], list[str]]:
    """The parameters with positions for this grid, and notes on the changes."""
    params, position = dict(params), params.get("pos_embed")
    if position is None or position.ndim != 3:
        return params, []
    own = int(class_position)
    given = position.shape[1]
    if not own and math.isqrt(given) ** 2 == given - 1 and "cls_token" in params:
        # DINOv2 has a position of the class token; timm has already added it to the token.
        params["cls_token"] = params["cls_token"] + position[:, :1]
        position = position[:, 1:]
    side = math.isqrt(position.shape[1] - own)
    is_square = side**2 == position.shape[1] - own
    if not is_square or grid == (side, side):
        return params | {"pos_embed": position}, []
    params["pos_embed"] = _resized(position, own, grid)
    return params, [f"positions of {side}×{side} patches resized to {grid[0]}×{grid[1]}"]


def _resized(position: np.ndarray, tokens: int, grid: tuple[int, int]) -> np.ndarray:
    """Resizes positions `[1, tokens + side², D]` to `[1, tokens + height · width, D]`.

    The method is bicubic and antialiased, as in timm's `resample_abs_pos_embed`.
    """
    first, patches = position[:, :tokens], position[:, tokens:]
    side = math.isqrt(patches.shape[1])
    square = jnp.asarray(patches.reshape(1, side, side, -1))
    shape = (1, *grid, square.shape[-1])
    made = np.asarray(jax.image.resize(square, shape, "bicubic", antialias=True))
    return np.concatenate([first, made.reshape(1, -1, shape[-1])], axis=1)


def _tokens(x: np.ndarray) -> np.ndarray:
    """Reshapes `[D]` or `[T, D]` to `[1, T, D]`."""
    return x.reshape(1, -1, x.shape[-1]) if x.ndim in (1, 2) else x


def _block(prefix: str, **names: str) -> list[Rule]:
    """The rules of a block of PyTorch.

    Args:
      prefix: regular expression of the names' prefix, with the block's number as a group.
      names: our names -> regular expressions of the published names.
    """
    rules = []
    for ours, theirs in names.items():
        pattern, path = rf"{prefix}\.{theirs}", rf"block_\1/{ours}"
        if ours.startswith("norm"):
            rules += torch_norm(pattern, path)
        else:
            rules += torch_layer(pattern, path, transposed)
    return rules


def _separate(pattern: str) -> list[Rule]:
    """The rules of queries, keys and values in three layers; `pattern` captures their initial."""
    return [
        Rule(rf"{pattern}\.weight", r"block_\1/qkv/kernel#\2", transposed),
        Rule(rf"{pattern}\.bias", r"block_\1/qkv/bias#\2"),
    ]


_TIMM = [
    Rule("cls_token", "cls_token"),
    Rule("reg_token|register_tokens", "reg_token"),
    Rule("pos_embed", "pos_embed"),
    Rule("mask_token", ""),
    *torch_layer(r"patch_embed\.proj", "patch_embed", hwio),
    *_block(
        r"blocks\.(\d+)", norm1="norm1", norm2="norm2", qkv=r"attn\.qkv", proj=r"attn\.proj",
        fc1=r"mlp\.fc1", fc2=r"mlp\.fc2",
    ),
    Rule(r"blocks\.(\d+)\.ls([12])\.gamma", r"block_\1/ls\2"),
    *torch_norm("norm", "norm"),
    *torch_norm("norm_pre", "norm_pre"),
    *torch_norm("fc_norm", "fc_norm"),
    *torch_layer("head", "head", transposed),
    Rule(r"pre_logits\..*|decoder_.*", ""),
]  # fmt: skip
_CLIP_BLOCK = r"visual\.transformer\.resblocks\.(\d+)"
_OPEN_CLIP = [
    Rule(r"visual\.class_embedding", "cls_token", _tokens),
    Rule(r"visual\.positional_embedding", "pos_embed", _tokens),
    *torch_layer(r"visual\.conv1", "patch_embed", hwio),
    *torch_norm(r"visual\.ln_pre", "norm_pre"),
    *torch_norm(r"visual\.ln_post", "norm"),
    *_block(
        _CLIP_BLOCK, norm1="ln_1", norm2="ln_2", proj=r"attn\.out_proj",
        fc1=r"mlp\.c_fc", fc2=r"mlp\.c_proj",
    ),
    Rule(rf"{_CLIP_BLOCK}\.attn\.in_proj_weight", r"block_\1/qkv/kernel", transposed),
    Rule(rf"{_CLIP_BLOCK}\.attn\.in_proj_bias", r"block_\1/qkv/bias"),
    # The projection to the space of text embeddings, and the text tower.
    Rule(r"visual\.proj|text\..*|transformer\..*|token_embedding\..*|positional_embedding", ""),
    Rule(r"ln_final\..*|text_projection|logit_(scale|bias)", ""),
    Rule("input_resolution|context_length|vocab_size", ""),
]  # fmt: skip
_LAYER = r"(?:vit\.|dinov2\.)?encoder\.layer\.(\d+)"
_EMBEDDINGS = r"(?:vit\.|dinov2\.)?embeddings"
_TOWER = r"vision_model\.encoder\.layers\.(\d+)"
_TRANSFORMERS = [
    Rule(rf"{_EMBEDDINGS}\.cls_token", "cls_token"),
    Rule(rf"{_EMBEDDINGS}\.register_tokens", "reg_token"),
    Rule(rf"{_EMBEDDINGS}\.position_embeddings", "pos_embed"),
    Rule(rf"{_EMBEDDINGS}\.mask_token|pooler\..*", ""),
    *torch_layer(rf"{_EMBEDDINGS}\.patch_embeddings\.projection", "patch_embed", hwio),
    *_block(
        _LAYER, norm1="(?:norm1|layernorm_before)", norm2="(?:norm2|layernorm_after)",
        proj=r"attention\.output\.dense", fc1=r"(?:mlp\.fc1|intermediate\.dense)",
        fc2=r"(?:mlp\.fc2|output\.dense)",
    ),
    *_separate(rf"{_LAYER}\.attention\.attention\.(query|key|value)"),
    Rule(rf"{_LAYER}\.layer_scale([12])\.lambda1", r"block_\1/ls\2"),
    *torch_norm(r"(?:vit\.|dinov2\.)?layernorm", "norm"),
    *torch_layer("classifier", "head", transposed),
    Rule(r"vision_model\.embeddings\.class_embedding", "cls_token", _tokens),
    Rule(r"vision_model\.embeddings\.position_embedding\.weight", "pos_embed", _tokens),
    *torch_layer(r"vision_model\.embeddings\.patch_embedding", "patch_embed", hwio),
    *torch_norm(r"vision_model\.pre_layrnorm", "norm_pre"),
    *torch_norm(r"vision_model\.post_layernorm", "norm"),
    *_block(
        _TOWER, norm1="layer_norm1", norm2="layer_norm2", proj=r"self_attn\.out_proj",
        fc1=r"mlp\.fc1", fc2=r"mlp\.fc2",
    ),
    *_separate(rf"{_TOWER}\.self_attn\.([qkv])_proj"),
    Rule(r"vision_model\.embeddings\.position_ids|visual_projection\..*|text_.*", ""),
]  # fmt: skip
# Heads of USB's pretraining, which USB's `load_checkpoint` (`nets/utils.py`) skips, too.
_OTHER_HEADS = Rule(r"(fc|classifier|mlp|head)\..*", "")
_TORCH = (*_TIMM, *_OPEN_CLIP, *_TRANSFORMERS, _OTHER_HEADS)


def _merge_heads(x: np.ndarray) -> np.ndarray:
    """Merges the heads of queries, keys or values: `[…, heads, size]` -> `[…, heads · size]`."""
    return x.reshape(*x.shape[:-2], -1) if x.ndim > 1 else x


def _merge_inputs(x: np.ndarray) -> np.ndarray:
    """Merges the heads of the projection: `[heads, size, D]` -> `[heads · size, D]`."""
    return x.reshape(-1, x.shape[-1]) if x.ndim == 3 else x


def _plain(theirs: str, ours: str) -> Rule:
    """The rule of a layer whose parameters have Flax's names on both sides."""
    return Rule(rf"{theirs}/(kernel|bias|scale)", rf"{ours}/\{1 + theirs.count('(')}")


_ENCODER = r"Transformer/encoderblock_(\d+)"
_ATTENTION = rf"{_ENCODER}/MultiHeadDotProductAttention_[01]"
_FLAX = (
    Rule("cls", "cls_token"),
    Rule("pos_embedding|Transformer/posembed_input/pos_embedding", "pos_embed"),
    _plain("embedding", "patch_embed"),
    _plain(rf"{_ENCODER}/LayerNorm_0", r"block_\1/norm1"),
    _plain(rf"{_ENCODER}/LayerNorm_[12]", r"block_\1/norm2"),
    Rule(rf"{_ATTENTION}/(query|key|value)/(kernel|bias)", r"block_\1/qkv/\3#\2", _merge_heads),
    Rule(rf"{_ATTENTION}/out/kernel", r"block_\1/proj/kernel", _merge_inputs),
    Rule(rf"{_ATTENTION}/out/bias", r"block_\1/proj/bias"),
    _plain(rf"{_ENCODER}/MlpBlock_[013]/Dense_0", r"block_\1/fc1"),
    _plain(rf"{_ENCODER}/MlpBlock_[013]/Dense_1", r"block_\1/fc2"),
    _plain("Transformer/encoder_norm", "norm"),
    _plain("head", "head"),
    Rule("pre_logits/.*|t|txt/.*", ""),
)
