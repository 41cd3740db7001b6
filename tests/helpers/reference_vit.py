"""timm's vision transformer in NumPy float64, and tensors under timm's names for it."""

import math

import numpy as np

WIDTH, DEPTH, HEADS, PATCH, SIDE = 12, 2, 3, 4, 8
GRID = SIDE // PATCH


def tensors(variant="augreg", *, classes=None, seed=0, grid=GRID):
    """Returns random weights of a tiny transformer, with timm's names for a variant."""
    random = np.random.RandomState(seed)

    def draw(*shape, scale=0.3):
        return np.float32(random.normal(scale=scale, size=shape))

    def norm(name):
        return {f"{name}.weight": 1 + draw(WIDTH), f"{name}.bias": draw(WIDTH)}

    def dense(name, outputs, inputs):
        return {f"{name}.weight": draw(outputs, inputs), f"{name}.bias": draw(outputs)}

    registers = variant == "dinov2_reg"
    made = {
        "cls_token": draw(1, 1, WIDTH),
        "pos_embed": draw(1, grid**2 + (not registers), WIDTH),
        "patch_embed.proj.weight": draw(WIDTH, 3, PATCH, PATCH, scale=0.1),
    }
    if registers:
        made["reg_token"] = draw(1, 4, WIDTH)
    if "clip" in variant:
        made |= norm("norm_pre")
    else:
        made["patch_embed.proj.bias"] = draw(WIDTH)
    for i in range(DEPTH):
        block = f"blocks.{i}"
        made |= norm(f"{block}.norm1") | norm(f"{block}.norm2")
        made |= dense(f"{block}.attn.qkv", 3 * WIDTH, WIDTH)
        made |= dense(f"{block}.attn.proj", WIDTH, WIDTH)
        made |= dense(f"{block}.mlp.fc1", 4 * WIDTH, WIDTH)
        made |= dense(f"{block}.mlp.fc2", WIDTH, 4 * WIDTH)
        if "dinov2" in variant:
            made |= {f"{block}.ls{j}.gamma": draw(WIDTH) for j in (1, 2)}
    made |= norm("fc_norm" if variant == "mae" else "norm")
    return made | (dense("head", classes, WIDTH) if classes else {})


def forward(tensors, images, variant, mean, std):
    """Maps uint8 images `[N, H, W, 3]` to tokens, features and, with a head, logits."""
    w = {name: np.float64(x) for name, x in tensors.items()}
    epsilon = 1e-5 if "clip" in variant else 1e-6

    def norm(name, x):
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + epsilon)
        return x * w[f"{name}.weight"] + w[f"{name}.bias"]

    def dense(name, x):
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    x = (images / 255 - mean) / std
    count, side = len(x), x.shape[1] // PATCH
    patches = x.reshape(count, side, PATCH, side, PATCH, 3).transpose(0, 1, 3, 5, 2, 4)
    kernel = w["patch_embed.proj.weight"].reshape(WIDTH, -1)
    x = patches.reshape(count, side**2, -1) @ kernel.T + w.get("patch_embed.proj.bias", 0)
    first = np.tile(w["cls_token"], (count, 1, 1))
    if "reg_token" in w:
        x = x + w["pos_embed"]
        x = np.concatenate([first, np.tile(w["reg_token"], (count, 1, 1)), x], axis=1)
    else:
        x = np.concatenate([first, x], axis=1) + w["pos_embed"]
    if "norm_pre.weight" in w:
        x = norm("norm_pre", x)
    for i in range(DEPTH):
        block = f"blocks.{i}"
        scales = [w.get(f"{block}.ls{j}.gamma", 1) for j in (1, 2)]
        y = dense(f"{block}.attn.qkv", norm(f"{block}.norm1", x))
        x = x + scales[0] * dense(f"{block}.attn.proj", _attention(y))
        y = dense(f"{block}.mlp.fc1", norm(f"{block}.norm2", x))
        y = y / (1 + np.exp(-1.702 * y)) if variant == "clip" else y * _normal_cdf(y)
        x = x + scales[1] * dense(f"{block}.mlp.fc2", y)
    if variant == "mae":
        features = norm("fc_norm", x[:, 1:].mean(axis=1))
    else:
        x = norm("norm", x)
        features = x[:, 0]
    return x, features, dense("head", features) if "head.weight" in w else None


def _attention(qkv):
    count, length, _ = qkv.shape
    q, k, v = qkv.reshape(count, length, 3, HEADS, -1).transpose(2, 0, 3, 1, 4)
    scores = np.exp(q @ k.transpose(0, 1, 3, 2) / math.sqrt(q.shape[-1]))
    weights = scores / scores.sum(-1, keepdims=True)
    return (weights @ v).transpose(0, 2, 1, 3).reshape(count, length, -1)


def _normal_cdf(x):
    return 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))
