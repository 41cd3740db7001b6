"""Loads named tensors into a model; every tensor must match a parameter."""

from collections.abc import Mapping
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict

from ssljax.errors import UsageError
from ssljax.log import some
from ssljax.models import key_maps
from ssljax.models.key_maps import Translated
from ssljax.network import groups_of
from ssljax.pretrained.weight_files import FIELD, Weights

_STATISTICS = ("mean", "var")  # last parts of the paths of BatchNorm's statistics
Shapes = Mapping[str, tuple[int, ...]]


class Fitted(NamedTuple):
    """Weights that fit a model."""

    params: Mapping[str, np.ndarray]  # path, `block_0/qkv/kernel` -> float32
    batch_stats: Mapping[str, np.ndarray]
    has_head: bool  # whether they include the last layer
    lines: tuple[str, str, str]  # messages on what matched, what was left out and what is new


def fit(
    weights: Weights, model: nn.Module, name: str, *, image_shape: tuple[int, int, int]
) -> Fitted:
    """Assigns each tensor to a parameter of `model`.

    The last layer is loaded if it has the model's number of classes; else it keeps its random
    weights. Every other parameter of the model must be there, and every tensor must match one.

    Args:
      name: `config.model`, for messages.
      image_shape: (height, width, channels) of the model's images.

    Raises:
      UsageError: a tensor is missing, matches no parameter or has another shape; or the model has
        no rules for published names.
    """
    head = f"{groups_of(model).head}/"
    shapes, found = _shapes(model, image_shape), _translated(weights, model, name, image_shape)
    may_be_new, may_be_left = (head, *found.may_be_new), (head, *found.may_be_left)
    missing = [p for p in shapes if p not in found.params and not p.startswith(may_be_new)]
    extra = [p for p in found.params if p not in shapes and not p.startswith(may_be_left)]
    problem = ""
    if missing or extra or found.unknown:
        problem = _misfit(found, missing, extra)
    own_head = [p for p in shapes if p.startswith(head)]
    has_head = all(_fits(found, path, shapes) for path in own_head)
    taken = [p for p in shapes if p in found.params and (has_head or p not in own_head)]
    wrong = [path for path in taken if not _fits(found, path, shapes)]
    if wrong and not problem:
        problem = _wrong_shape(weights, found, wrong[0], shapes)
    if problem:
        variant = f" with variant {model.variant!r}" if hasattr(model, "variant") else ""
        raise UsageError(
            f"{FIELD} {weights.name} does not fit config.model {name!r}{variant}: {problem} (see "
            "config.model_args)"
        )
    params = {path: np.asarray(found.params[path], np.float32) for path in taken}
    left = [path for path in found.params if path not in params]
    return Fitted(
        {path: x for path, x in params.items() if not _is_statistic(path)},
        {path: x for path, x in params.items() if _is_statistic(path)},
        has_head,
        _lines(weights, found, params, left, [path for path in shapes if path not in params]),
    )


def _translated(
    weights: Weights, model: nn.Module, name: str, image_shape: tuple[int, int, int]
) -> Translated:
    if weights.is_ours:
        found = key_maps.unchanged(weights.tensors)
    elif hasattr(model, "translate"):
        found = model.translate(weights.tensors)
    else:
        raise UsageError(
            f"{FIELD} {weights.name}: config.model {name!r} cannot load published weights; "
            "allowed: a run directory, or a vit or efficientnet_lite"
        )
    return model.adapt(found, image_shape) if hasattr(model, "adapt") else found


def _shapes(model: nn.Module, image_shape: tuple[int, int, int]) -> Shapes:
    """The path of each parameter and statistic of a model -> its shape."""
    images = jnp.zeros((1, *image_shape))
    made = jax.eval_shape(lambda: model.init(jax.random.key(0), images, train=False))
    return {
        path: x.shape
        for collection in ("params", "batch_stats")
        for path, x in flatten_dict(made.get(collection, {}), sep="/").items()
    }


def _is_statistic(path: str) -> bool:
    return path.rpartition("/")[2] in _STATISTICS


def _fits(found: Translated, path: str, shapes: Shapes) -> bool:
    return path in found.params and found.params[path].shape == shapes[path]


def _wrong_shape(weights: Weights, found: Translated, path: str, shapes: Shapes) -> str:
    sources, made = found.sources[path], list(found.params[path].shape)
    if sources == (path,):
        return f"its {path} is {made}; allowed: {list(shapes[path])}"
    theirs = ", ".join(f"{x} {list(weights.tensors[x].shape)}" for x in sources)
    return f"its {theirs} makes {path} {made}; allowed: {list(shapes[path])}"


def _misfit(found: Translated, missing: list[str], extra: list[str]) -> str:
    """A message with the missing parameters and the extra tensors: together they show renamings."""
    without = found.unknown + [source for path in extra for source in found.sources[path]]
    lacks = f"it lacks {some(missing)}" if missing else ""
    holds = f"it holds {some(without)}, which the model lacks" if without else ""
    return (
        f"{' and '.join(filter(None, (lacks, holds)))}; allowed: all weights of the same network, "
        "except its last layer"
    )


def _lines(
    weights: Weights,
    found: Translated,
    params: Mapping[str, np.ndarray],
    left: list[str],
    new: list[str],
) -> tuple[str, str, str]:
    step = f", step {weights.step}" if weights.step is not None else ""
    total = sum(x.size for x in params.values())
    notes = "".join(f"; {note}" for note in found.notes)
    names = found.without_place + [source for path in left for source in found.sources[path]]
    return (
        f"starts with the weights of {weights.name}{step}: {len(params)} arrays of {total:,} "
        f"numbers{notes}",
        f"left out: {some(names) if names else 'nothing'}",
        f"randomly initialised: {some(new) if new else 'nothing'}",
    )
