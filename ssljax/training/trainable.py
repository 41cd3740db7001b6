"""Which parameters are trained, and how the network uses the others: `config.trainable`.

Frozen parameters have no gradient, no optimizer state and no average: the step differentiates by
the trained part only, and merges both parts where the network is called.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

PyTree = Any
ALLOWED = "all, head, last:<blocks>, lora:<rank>"
_ADAPTED = ("qkv", "proj")  # the layers with a low-rank update, as in V-PET


class Trainable(NamedTuple):
    """The split of parameters into trained and frozen ones."""

    # (key, all parameters) -> trained parameters, frozen parameters
    split: Callable[[jax.Array, PyTree], tuple[PyTree, PyTree]]
    # Whether the network runs in evaluation mode while it is trained: nothing is dropped, and
    # BatchNorm normalises by its running statistics, which do not change.
    as_in_evaluation: bool = False


def _all_of(key: jax.Array, params: PyTree) -> tuple[PyTree, PyTree]:
    del key
    return params, ()


ALL = Trainable(_all_of)


def parse(text: str) -> tuple[str, int]:
    """Parses `last:2` as ("last", 2); the number of `all` and `head` is 0.

    Raises:
      ValueError: the text is none of `ALLOWED`.
    """
    match = re.fullmatch(r"(all|head)|(last|lora):([1-9]\d{0,3})", text)
    if match is None:
        raise ValueError(f"trainable is {text!r}; allowed: {ALLOWED}")
    return (match[1], 0) if match[1] else (match[2], int(match[3]))


def make_trainable(text: str, *, head: str, group: Callable[[str], int], groups: int) -> Trainable:
    """Reads `config.trainable` for one network.

    `head` trains the last layer, `last:N` the last N blocks and all later layers, and `lora:R` (Hu
    et al., 2022) the head and an update A·B of rank R of attention's projections: A starts random,
    B starts at 0, and A·B is added without a factor. The heads of methods are always trained.

    Args:
      head: the name of the network's last layer.
      group: the name of a module or parameter -> its group, from 0, of `groups`.

    Raises:
      ValueError: the text is none of `ALLOWED`, or the network has fewer blocks.
    """
    kind, number = parse(text)
    if kind == "all":
        return ALL
    first = groups - 1
    if kind == "last":
        if number > groups - 2:
            raise ValueError(f"trainable is {text!r}; allowed: up to last:{groups - 2}")
        first -= number

    def is_trained(name: str) -> bool:
        return name in (head, "heads") or (kind == "last" and group(name) >= first)

    def split(key: jax.Array, params: PyTree) -> tuple[PyTree, PyTree]:
        if head not in params:
            raise ValueError(f"trainable is {text!r}; allowed for a network without {head!r}: all")
        trained = {name: x for name, x in params.items() if is_trained(name)}
        frozen = {name: x for name, x in params.items() if name not in trained}
        if kind == "lora":
            adapters = _adapters(key, frozen, number)
            if not adapters:
                raise ValueError(
                    f"trainable is {text!r}; allowed for a network without attention: all, head, "
                    "last:<blocks>"
                )
            trained |= adapters
        return trained, frozen

    return Trainable(split, as_in_evaluation=kind == "head")


def _adapters(key: jax.Array, params: PyTree, rank: int) -> PyTree:
    """Adapters `{block: {"qkv": {"lora_a": {"kernel": [D, R]}, "lora_b": …[R, 3D]}, …}}`."""
    found: dict[str, Any] = {}
    draw = jax.nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")  # like torch.nn.Linear
    for i, (name, x) in enumerate(sorted(params.items())):
        if not isinstance(x, Mapping):
            continue
        mine = jax.random.fold_in(key, i)
        if name in _ADAPTED:
            inputs, outputs = x["kernel"].shape
            found[name] = {
                "lora_a": {"kernel": draw(mine, (inputs, rank))},
                "lora_b": {"kernel": jnp.zeros((rank, outputs))},
            }
        elif inner := _adapters(mine, x, rank):
            found[name] = inner
    return found
