"""Everything a step reads and changes, as one pytree. A checkpoint is this and nothing else."""

from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import optax

from ssljax.methods.method import Method, Sizes

PyTree = Any


class TrainState(flax.struct.PyTreeNode):
    """The state of training after `step` steps."""

    step: jax.Array  # [] int32
    params: PyTree  # float32
    batch_stats: PyTree  # float32, BatchNorm's running means and variances
    ema: PyTree  # moving average of params
    ema_batch_stats: PyTree  # moving average of batch_stats; (): the recipe averages none
    opt_state: PyTree
    method: PyTree  # the method's own state
    augment: PyTree  # what the augmentation has learned
    key: jax.Array  # [2] uint32, the root of all randomness; never changes

    def weights(self, kind: str) -> tuple[PyTree, PyTree]:
        """Parameters and BatchNorm statistics of the `raw` model, or of the `ema` one."""
        if kind == "raw":
            return self.params, self.batch_stats
        return self.ema, self.ema_batch_stats or self.batch_stats

    def starting_with(self, params: PyTree, batch_stats: PyTree) -> "TrainState":
        """The state before the first step with other weights of the network; heads stay."""
        params = self.params | params
        return self.replace(
            params=params,
            ema=params,
            batch_stats=batch_stats,
            ema_batch_stats=batch_stats if self.ema_batch_stats else (),
        )


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
) -> TrainState:
    """The state before the first step; the moving average starts at the initial weights.

    Call it under `jit`, or under `eval_shape` for the shapes alone.

    Args:
      key: `[2]` uint32 (`jax.random.PRNGKey`), drawn from the run's seed.
      image_shape: (height, width, channels).
      sizes: of the data.
      augment: the augmentation's state before the first step.
      average_batch_stats: whether the moving average has BatchNorm statistics of its own.
    """
    root, init_key = jax.random.split(key)
    images = jnp.zeros((1, *image_shape))
    (_, features), variables = model.init_with_output(init_key, images, train=False)
    params = variables["params"] | _init_heads(
        init_key, method.heads, features.shape[-1], sizes.classes
    )
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
    )


def _init_heads(key, heads, features, classes):
    """`{"heads": {name: weights}}`."""
    if not heads:
        return {}
    keys = jax.random.split(jax.random.fold_in(key, 1), len(heads))
    drawn = {
        head.name: head.init(k, features, classes) for k, head in zip(keys, heads, strict=True)
    }
    return {"heads": drawn}
