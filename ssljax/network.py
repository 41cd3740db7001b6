"""Builds the network of `config.model`, without the code that only training needs."""

import inspect
import os
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

import ssljax.models
from ssljax.checks import call, check_returned, prefix_errors
from ssljax.errors import UsageError
from ssljax.lookup import find, modules_of

PyTree = Any
_NO_MODELS = ("convolution", "key_maps", "layers", "vit_keys")  # modules of `models/` without any


def make_model(config: Any, **fixed: Any) -> nn.Module:
    """The network that `config.model` and `config.model_args` name.

    Args:
      fixed: arguments that are not the config's: `num_classes`, `dtype`, `axis_name`, `remat`. A
        network from outside the package needs only the first.
    """
    function = find("config.model", config.model, modules_of(ssljax.models, without=_NO_MODELS))
    for knob, argument in (("bfloat16", "dtype"), ("remat", "remat")):
        if config[knob] and not _takes(function, argument):
            raise UsageError(
                f"config.{knob} is True; allowed for config.model {config.model!r}, which has no "
                f"argument {argument}: False"
            )
    model = call(function, config, "model", **fixed)
    check_returned("config.model", config.model, model, nn.Module)
    return model


class Groups(NamedTuple):
    """The parts of a network from its input to its last layer, in order."""

    head: str  # the name of the last layer
    group: Callable[[str], int]  # the name of a module or parameter -> its part, from 0
    groups: int  # how many there are; the last one is the head's


def groups_of(model: nn.Module) -> Groups:
    """Returns the parts that a model defines by `group` and `groups`.

    A model without them has two: its head, named as Flax names a first dense layer, and the rest.
    """
    if hasattr(model, "group"):
        return Groups("head", model.group, model.groups)
    return Groups("Dense_0", lambda name: int(name == "Dense_0"), 2)


def require_outputs(
    model: nn.Module, name: str, *, image_shape: tuple[int, ...], num_classes: int
) -> None:
    """Checks the shapes that a network from outside the package returns for two images.

    Raises:
      UsageError: it is something other than logits and features, or the network fails.
    """
    images = jax.ShapeDtypeStruct((2, *image_shape), jnp.float32)
    field = f"config.model {name!r}"
    with prefix_errors(field):
        key = jax.random.PRNGKey(0)
        found, variables = jax.eval_shape(
            lambda images: model.init_with_output(key, images, train=False), images
        )
    shapes = [getattr(x, "shape", None) for x in found] if isinstance(found, tuple) else []
    if len(shapes) != 2 or shapes[0] != (2, num_classes) or shapes[1] is None:
        told = jax.tree.map(lambda x: f"{x.dtype} {list(x.shape)}", found)
        raise UsageError(
            f"{field} returns {told} of 2 images; allowed: a pair, logits [2, {num_classes}] and "
            "features [2, <any number>]"
        )
    if "params" not in variables:
        raise UsageError(f"{field} has no weights; allowed: a network that learns")


def network_weights(state: Mapping[str, Any], kind: str) -> tuple[PyTree, PyTree]:
    """Parameters and BatchNorm statistics of the network alone, of a saved `TrainState`.

    Args:
      state: nested dicts, as a checkpoint is read without a template.
      kind: `ema`, the moving average's, or `raw`.
    """
    params, batch_stats = state["params"], state["batch_stats"]
    if kind == "ema":
        params, batch_stats = state["ema"], state.get("ema_batch_stats") or batch_stats
    params = merged(params, state.get("frozen") or ())
    # Heads are further outputs of a method that only training uses.
    return {name: value for name, value in params.items() if name != "heads"}, batch_stats or {}


def merged(trained: PyTree, frozen: PyTree) -> PyTree:
    """Merges trained and frozen parameters (`config.trainable`), and adds low-rank updates."""
    if "lora_a" in trained:
        update = trained["lora_a"]["kernel"] @ trained["lora_b"]["kernel"]
        return {**frozen, "kernel": frozen["kernel"] + update}
    both = {name: merged(x, frozen[name]) for name, x in trained.items() if name in frozen}
    return {**trained, **frozen, **both} if frozen else trained


def training_dtype(config: Any) -> Any:
    """What the network computes in while it is trained and evaluated."""
    return jnp.bfloat16 if config.bfloat16 else jnp.float32


def _takes(function: Any, argument: str) -> bool:
    parameters = inspect.signature(function).parameters
    return argument in parameters or any(
        p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values()
    )


def available() -> list[jax.Device]:
    """The devices that JAX finds; the first call starts its backend.

    Raises:
      UsageError: it finds none, as where $JAX_PLATFORMS names what this machine has not.
    """
    try:
        return jax.devices()
    except (RuntimeError, AssertionError) as error:
        platforms = os.environ.get("JAX_PLATFORMS", "")
        reason = " ".join(str(error).split())[:300] or "it is not there"
        raise UsageError(
            f"JAX_PLATFORMS is {platforms!r}, and JAX cannot start it ({reason}); allowed: what "
            "this machine has, such as cpu, or nothing"
        ) from error
