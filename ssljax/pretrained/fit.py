"""Named tensors -> the weights of a model, each in its place or refused."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ssljax.errors import UsageError
from ssljax.log import some
from ssljax.models.key_maps import Translated
from ssljax.pretrained.weight_files import FIELD, Weights

PyTree = Any
_STATISTICS = ("mean", "var")  # what the paths of BatchNorm's end in


class Fitted(NamedTuple):
    """Weights that have found their places in a model."""

    params: Mapping[str, np.ndarray]  # path, `block_0/qkv/kernel` -> float32
    batch_stats: Mapping[str, np.ndarray]
    lines: tuple[str, str, str]  # what matched, what was left out, what is new

    def over(self, params: PyTree, batch_stats: PyTree) -> tuple[PyTree, PyTree]:
        """Initial weights and statistics, with these in their places."""
        return _over(params, self.params), _over(batch_stats, self.batch_stats)


def _over(tree: PyTree, flat: Mapping[str, np.ndarray]) -> PyTree:
    known = flax.traverse_util.flatten_dict(tree, sep="/")
    return flax.traverse_util.unflatten_dict({**known, **flat}, sep="/")


def fit(
    weights: Weights, model: nn.Module, name: str, *, image_shape: tuple[int, int, int]
) -> Fitted:
    """Gives each tensor its place in `model`.

    The head's are taken where their number of classes is the model's; else it is left as it is
    drawn. Every other parameter of the model must be there, and every tensor have a place.

    Args:
      name: `config.model`, for messages.
      image_shape: (height, width, channels) of the images that the model is for.

    Raises:
      UsageError: a tensor is missing, has no place, or has another shape; or the model knows
        nobody's names but ours.
    """
    if not hasattr(model, "translate"):
        raise UsageError(
            f"{FIELD} {weights.name}: config.model {name!r} has no names for other people's "
            "weights; allowed: a run directory, or a vit or efficientnet_lite"
        )
    found = model.translate(weights.tensors, image_shape)
    shapes = _shapes(model, image_shape)
    missing = [p for p in shapes if p not in found.params and not p.startswith(found.may_be_new)]
    extra = [p for p in found.params if p not in shapes and not p.startswith(found.may_be_left)]
    if missing or extra or found.unknown:
        raise UsageError(f"{FIELD} {weights.name} {_misfit(found, missing, extra, name, model)}")
    other_head = {p for p in shapes if p.startswith("head/") and not _fits(found, p, shapes)}
    taken = [path for path in shapes if path in found.params and path not in other_head]
    for path in taken:
        if not _fits(found, path, shapes):
            raise UsageError(_wrong_shape(weights, found, path, shapes[path], name))
    params = {path: np.asarray(found.params[path], np.float32) for path in taken}
    left = [path for path in found.params if path not in params]
    return Fitted(
        {path: x for path, x in params.items() if not _is_statistic(path)},
        {path: x for path, x in params.items() if _is_statistic(path)},
        _lines(weights, found, params, left, [path for path in shapes if path not in params]),
    )


def _shapes(model: nn.Module, image_shape: tuple[int, int, int]) -> dict[str, tuple[int, ...]]:
    """The path of each parameter and statistic of a model -> its shape."""
    images = jnp.zeros((1, *image_shape))
    made = jax.eval_shape(lambda: model.init(jax.random.key(0), images, train=False))
    flat = {
        path: x.shape
        for collection in ("params", "batch_stats")
        for path, x in flax.traverse_util.flatten_dict(made.get(collection, {}), sep="/").items()
    }
    return flat


def _is_statistic(path: str) -> bool:
    return path.rpartition("/")[2] in _STATISTICS


def _fits(found: Translated, path: str, shapes: Mapping[str, tuple[int, ...]]) -> bool:
    return path in found.params and found.params[path].shape == shapes[path]


def _wrong_shape(
    weights: Weights, found: Translated, path: str, shape: tuple[int, ...], name: str
) -> str:
    sources = found.sources[path]
    theirs = ", ".join(f"{x} {list(weights.tensors[x].shape)}" for x in sources)
    made = list(found.params[path].shape)
    return (
        f"{FIELD} {weights.name} has {theirs}, which makes {made}; allowed: {list(shape)}, as "
        f"{path} of config.model {name!r} is here (see config.model_args)"
    )


def _misfit(
    found: Translated, missing: list[str], extra: list[str], name: str, model: nn.Module
) -> str:
    """What is missing, and what has no place: together they tell what was renamed."""
    without = found.unknown + [source for path in extra for source in found.sources[path]]
    variant = f" with variant {model.variant!r}" if hasattr(model, "variant") else ""
    lacks = f"lacks {some(missing)}" if missing else ""
    holds = f"holds {some(without)}, which have no place" if without else ""
    return (
        f"{' and '.join(filter(None, (lacks, holds)))} in config.model {name!r}{variant}; allowed: "
        "all weights of the same network but its head (see config.model_args)"
    )


def _lines(
    weights: Weights,
    found: Translated,
    params: Mapping[str, np.ndarray],
    left: list[str],
    new: list[str],
) -> tuple[str, str, str]:
    total = sum(x.size for x in params.values())
    notes = "".join(f"; {note}" for note in found.notes)
    if any(path.startswith("head/") for path in params):
        notes += f"; its head of {params['head/bias'].size} classes too"
    names = found.without_place + [source for path in left for source in found.sources[path]]
    return (
        f"weights of {weights.name}: {len(params)} of the network's arrays matched, {total:,} "
        f"numbers{notes}",
        f"left out: {some(names) if names else 'nothing'}",
        f"new, as they are drawn: {some(new) if new else 'nothing'}",
    )
