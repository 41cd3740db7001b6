"""`config.model` -> the network. Whoever serves a model needs this, and nothing that trains it."""

import inspect
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

import ssljax.models
from ssljax.checks import call, check_returned
from ssljax.errors import UsageError
from ssljax.lookup import find, modules_of


def make_model(config: Any, **fixed: Any) -> nn.Module:
    """The network that `config.model` and `config.model_args` name.

    Args:
      fixed: arguments that are not the config's: `num_classes`, `dtype`, `axis_name`. A network of
        one's own can do without the last two.
    """
    function = find(
        "config.model", config.model, modules_of(ssljax.models, without=["layers", "convolution"])
    )
    if config.bfloat16 and not _takes(function, "dtype"):
        raise UsageError(
            f"config.bfloat16 is True; allowed for config.model {config.model!r}, which has no "
            "argument dtype: False"
        )
    model = call(function, config, "model", **fixed)
    check_returned("config.model", config.model, model, nn.Module)
    return model


def training_dtype(config: Any) -> Any:
    """What the network computes in while it is trained and evaluated."""
    return jnp.bfloat16 if config.bfloat16 else jnp.float32


def _takes(function: Any, argument: str) -> bool:
    parameters = inspect.signature(function).parameters
    return argument in parameters or any(
        p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values()
    )
