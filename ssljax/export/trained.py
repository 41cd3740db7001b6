"""A run directory -> the trained model, ready to be exported.

Reads no data set, and needs neither the method nor the optimizer that trained it.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections

from ssljax.augment.ops import to_float
from ssljax.errors import UsageError
from ssljax.recipe import make_model
from ssljax.storage.checkpoints import Checkpoints
from ssljax.storage.files import read_json

PyTree = Any
OUTPUTS = ("logits", "probabilities")


class Trained(NamedTuple):
    """A model with its weights."""

    model: nn.Module  # computes in float32
    variables: PyTree  # "params" and "batch_stats", NumPy arrays
    image_shape: tuple[int, int, int]  # (height, width, channels)
    class_names: tuple[str, ...]
    config: dict[str, Any]  # `config.json` of the run
    step: int
    weights: str  # "ema" or "raw"

    def serve(self) -> Callable[[PyTree, jax.Array], dict[str, jax.Array]]:
        """`f(variables, images) -> outputs`, what every format computes.

        Images are `[N, H, W, C]`, uint8 or float32, 0..255; `logits` and `probabilities` are
        `[N, classes]` float32.
        """

        def f(variables: PyTree, images: jax.Array) -> dict[str, jax.Array]:
            logits, _ = self.model.apply(variables, to_float(images), train=False)
            return {"logits": logits, "probabilities": jax.nn.softmax(logits)}

        return f


def load(workdir: Path, *, weights: str = "ema") -> Trained:
    """The newest checkpoint of a run directory.

    Args:
      weights: `ema`, the moving average, or `raw`.

    Raises:
      UsageError: there is no checkpoint, or it cannot be read.
    """
    config = read_json(workdir / "config.json")
    data = read_json(workdir / "data.json")
    with Checkpoints(workdir, keep=0) as checkpoints:
        newest = checkpoints.restore_newest()
    if newest is None:
        raise UsageError(f"{workdir} holds no checkpoint yet")
    step, state = newest[0], newest[1]["state"]
    params, batch_stats = state["params"], state["batch_stats"]
    if weights == "ema":
        params, batch_stats = state["ema"], state.get("ema_batch_stats") or batch_stats
    # Heads are further outputs of a method that only training uses.
    params = {name: value for name, value in params.items() if name != "heads"}
    model = make_model(
        ml_collections.ConfigDict(config),
        num_classes=len(data["class_names"]),
        dtype=jnp.float32,
        axis_name=None,
    )
    variables = {"params": params} | ({"batch_stats": batch_stats} if batch_stats else {})
    return Trained(
        model=model,
        variables=variables,
        image_shape=tuple(data["image_shape"]),
        class_names=tuple(data["class_names"]),
        config=config,
        step=step,
        weights=weights,
    )
