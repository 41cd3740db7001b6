"""The state that a step reads and changes, as one pytree, and the content of checkpoints."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from ssljax.methods.method import Method, Sizes
from ssljax.training.trainable import ALL, Trainable

PyTree = Any


class Weights(NamedTuple):
    """The arguments of a network's call, see `Trainable`."""

    params: PyTree  # the trained parameters
    batch_stats: PyTree
    frozen: PyTree


@jax.tree_util.register_pytree_with_keys_class
@dataclasses.dataclass(frozen=True)
class TrainState:
    """The state of training after `step` steps, a pytree.

    `frozen` is part of it only if something is frozen: checkpoints of older versions have none.
    """

    step: jax.Array  # [] int32
    params: PyTree  # float32, the trained parameters
    batch_stats: PyTree  # float32, BatchNorm's running means and variances
    ema: PyTree  # moving average of params
    ema_batch_stats: PyTree  # moving average of batch_stats; (): the recipe averages none
    opt_state: PyTree
    method: PyTree  # the method's state
    augment: PyTree  # the augmentation's state
    key: jax.Array  # [2] uint32, the root of all randomness; never changes
    frozen: PyTree = ()  # float32, the parameters that are not trained; (): all are trained

    def weights(self, kind: str) -> Weights:
        """The weights of the `raw` model, or of the `ema` model."""
        if kind == "raw":
            return Weights(self.params, self.batch_stats, self.frozen)
        return Weights(self.ema, self.ema_batch_stats or self.batch_stats, self.frozen)

    def replace(self, **changes: Any) -> "TrainState":
        """The same state with other values of some fields."""
        return dataclasses.replace(self, **changes)

    def tree_flatten_with_keys(self) -> tuple[list[tuple[Any, PyTree]], tuple[str, ...]]:
        names = tuple(
            field.name
            for field in dataclasses.fields(self)
            if field.name != "frozen" or self.frozen != ()
        )
        return [(jax.tree_util.GetAttrKey(name), getattr(self, name)) for name in names], names

    @classmethod
    def tree_unflatten(cls, names: tuple[str, ...], values: Iterable[PyTree]) -> "TrainState":
        return cls(**dict(zip(names, values, strict=True)))

    def starting_with(self, params: PyTree, batch_stats: PyTree) -> "TrainState":
        """The state before the first step, with other weights of the network.

        Args:
          params, batch_stats: nested dicts; weights that they lack, such as the heads of methods,
            stay the same.
        """
        return self.replace(
            params=over(self.params, params),
            ema=over(self.ema, params),
            frozen=over(self.frozen, params),
            batch_stats=over(self.batch_stats, batch_stats),
            ema_batch_stats=over(self.ema_batch_stats, batch_stats),
        )


def over(tree: PyTree, others: PyTree) -> PyTree:
    """A tree whose leaves are replaced by those of `others`, where these have them."""
    if not isinstance(tree, Mapping):
        return tree
    return {
        name: x
        if name not in others
        else over(x, others[name])
        if isinstance(x, Mapping)
        else others[name]
        for name, x in tree.items()
    }


def init_state(
    key: jax.Array,
    *,
    model: nn.Module,
    method: Method,
    optimizer: optax.GradientTransformation,
    image_shape: tuple[int, int, int],
    sizes: Sizes,
    augment: PyTree = (),
    average_batch_stats: bool = False,
    trainable: Trainable = ALL,
) -> TrainState:
    """The state before the first step; the moving average starts at the initial weights.

    Call it under `jit`, or under `eval_shape` if only the shapes are needed.

    Args:
      key: `[2]` uint32 (`jax.random.PRNGKey`), drawn from the run's seed.
      image_shape: (height, width, channels).
      sizes: sizes of the data.
      augment: the augmentation's state before the first step.
      average_batch_stats: whether BatchNorm statistics are averaged too.
      trainable: which parameters are trained.

    Raises:
      ValueError: the network lacks the parts that are to be trained.
    """
    root, init_key = jax.random.split(key)
    images = jnp.zeros((1, *image_shape))
    (_, features), variables = model.init_with_output(init_key, images, train=False)
    params = variables["params"] | _init_heads(
        init_key, method.heads, features.shape[-1], sizes.classes
    )
    params, frozen = trainable.split(jax.random.fold_in(init_key, 2), params)
    batch_stats = variables.get("batch_stats", {})
    return TrainState(
        step=jnp.zeros([], jnp.int32),
        params=params,
        batch_stats=batch_stats,
        ema_batch_stats=jax.tree.map(jnp.copy, batch_stats) if average_batch_stats else (),
        ema=jax.tree.map(jnp.copy, params),
        opt_state=optimizer.init(params),
        method=method.init(sizes),
        augment=augment,
        key=root,
        frozen=frozen,
    )


def _init_heads(key, heads, features, classes):
    """The weights of heads, `{"heads": {name: weights}}`; {} if there are none."""
    if not heads:
        return {}
    keys = jax.random.split(jax.random.fold_in(key, 1), len(heads))
    drawn = {
        head.name: head.init(k, features, classes) for k, head in zip(keys, heads, strict=True)
    }
    return {"heads": drawn}
