"""The contract between a learning method and the training step.

A method is a NamedTuple of pure functions. It never sees devices, optimizers or the labels of
unlabelled images, and draws no random numbers in its loss: `noise` draws them, so that the loss
can be tested with numbers worked out by hand and exported as a graph.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

PyTree = Any


class Batch(NamedTuple):
    """What a loss may look at. Images are float32 in [-1, 1]."""

    labeled: jax.Array  # [B, H, W, C]
    labels: jax.Array  # [B] int32, 0..num_classes-1
    views: tuple[jax.Array, ...]  # each [M, H, W, C]: the unlabelled images, augmented per view
    # [classes] float32, τ · log of each class's share of the labelled images; None: τ is 0
    adjustment: jax.Array | np.ndarray | None = None

    def adjusted(self, logits: jax.Array) -> jax.Array:
        """Logits `[B, classes]` of labelled images as their loss takes them.

        This is logit adjustment (Menon et al., 2021, equation 10), with `config.logit_adjustment`
        for τ. Guesses are made of the logits themselves.
        """
        return logits if self.adjustment is None else logits + self.adjustment[None]


class Progress(NamedTuple):
    """How far training is, before this step."""

    images: jax.Array  # [] float32, labelled images seen
    fraction: jax.Array  # [] float32, share of the planned steps that are done, 0..1


class Aux(NamedTuple):
    """What a loss returns beside its value."""

    batch_stats: PyTree  # the BatchNorm statistics that survive this step
    state: PyTree  # the method's new state
    logs: dict[str, jax.Array]  # name -> [] float32, a mean over the batch
    guess: jax.Array | None = None  # [M, C] label distributions guessed for the unlabelled images
    mask: jax.Array | None = None  # [M] float32, how much each guess counted; None: fully


class Apply(Protocol):
    """The network in training mode."""

    def __call__(
        self, params: PyTree, images: jax.Array, head: str | None = None
    ) -> tuple[jax.Array, PyTree]:
        """Images `[N, H, W, C]` -> logits `[N, outputs]` float32, new batch statistics.

        The logits are those of the classes, or of one of `Method.heads`.
        BatchNorm normalises over exactly the images of one call; the returned statistics are
        this step's old ones moved towards those of the call.
        """


class Method(NamedTuple):
    """A learning method; `loss` is deterministic."""

    # The augmentation of each unlabelled view: a knob of `config.augment`, or "none".
    views: tuple[str, ...]
    # (num_classes) -> method state, a pytree
    init: Callable[[int], PyTree]
    # (key, batch) -> the random numbers the loss uses, a pytree. A method that is not joint
    # returns arrays whose first axis counts images; a device is given those of its own.
    noise: Callable[[jax.Array, Batch], PyTree]
    # (params, ema_params, apply, batch, noise, state, progress) -> (scalar, Aux)
    loss: Callable[[PyTree, PyTree, Apply, Batch, PyTree, PyTree, Progress], tuple[jax.Array, Aux]]
    # Whether the loss combines images with each other (MixMatch). On several devices such a
    # method is given the whole batch on each, and `apply` spreads the rows; any other method is
    # given each device's rows, and its loss and logs must be means over them.
    joint: bool = False
    # The augmentation of the labelled images.
    labeled_view: str = "weak"
    # Further dense layers on the model's features: name -> outputs. Their weights are part of
    # params, which shrink and are averaged like the model's own.
    heads: Mapping[str, int] = MappingProxyType({})
    # Whether the labelled loss is of `Batch.adjusted` logits, so that they can be adjusted.
    adjustable: bool = False


def no_state(num_classes: int) -> PyTree:
    """The `init` of a method without state."""
    del num_classes
    return ()


def no_noise(key: jax.Array, batch: Batch) -> PyTree:
    """The `noise` of a method whose loss is deterministic by itself."""
    del key, batch
    return ()
