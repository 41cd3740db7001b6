"""The contract between a learning method and the training step.

A method is a NamedTuple of pure functions. It never sees devices, optimizers or the labels of
unlabelled images. Its loss draws no random numbers: `noise` draws them, or a key where their number
depends on the classes. So the loss can be tested with numbers worked out by hand and exported as a
graph.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

from ssljax.heads import Head

PyTree = Any


class Batch(NamedTuple):
    """What a loss may look at. Images are float32 in [-1, 1]."""

    labeled: jax.Array  # [B, H, W, C]
    labels: jax.Array  # [B] int32, 0..num_classes-1
    views: tuple[jax.Array, ...]  # each [M, H, W, C]: the unlabelled images, augmented per view
    # Which images these are: positions in the split's list of labelled images, and in that of
    # unlabelled ones. An image can be twice in a batch.
    labeled_index: jax.Array | None = None  # [B] int32
    unlabeled_index: jax.Array | None = None  # [M] int32
    more_labeled: tuple[jax.Array, ...] = ()  # each [B, H, W, C]: of `Method.more_labeled_views`
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
    step: jax.Array | int = 0  # [] int32, steps that are done


class Sizes(NamedTuple):
    """What a method's first state may depend on: sizes of the data and of a step, and guesses."""

    classes: int
    class_counts: np.ndarray  # [classes] int64, labelled images of each class
    unlabeled: int  # unlabelled images
    batch: tuple[int, int] = (0, 0)  # labelled and unlabelled images of a step, over all devices
    # [unlabeled, classes] float32, what `Generations.targets` has made; None: this is the first one
    guesses: np.ndarray | None = None

    @property
    def labeled(self) -> int:
        """Labelled images."""
        return int(np.sum(self.class_counts))


class Aux(NamedTuple):
    """What a loss returns beside its value."""

    batch_stats: PyTree  # the BatchNorm statistics that survive this step
    state: PyTree  # the method's new state
    logs: dict[str, jax.Array]  # name -> [] float32, a mean over the batch
    guess: jax.Array | None = None  # [M, C] label distributions guessed for the unlabelled images
    mask: jax.Array | None = None  # [M] float32, how much each guess counted; None: fully


class Apply(Protocol):
    """The network."""

    def __call__(self, params: PyTree, images: jax.Array) -> tuple[jax.Array, PyTree]:
        """Images `[N, H, W, C]` -> logits `[N, C]` float32, new batch statistics; to train.

        Images can be `losses.Mixed` too.

        BatchNorm normalises over exactly the images of one call; the returned statistics are
        this step's old ones moved towards those of the call.
        """

    def with_features(
        self, params: PyTree, images: jax.Array
    ) -> tuple[jax.Array, jax.Array, PyTree]:
        """The same pass, which returns the features `[N, D]` float32 too.

        They are the input of the model's last layer, and `Method.heads` are applied to them.

        Returns:
          Logits, features, new batch statistics.
        """

    def evaluate(self, params: PyTree, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Logits and features in evaluation mode, for a teacher.

        BatchNorm has the statistics that go with the moving average of the weights: averages of
        the running ones (`config.ema_batch_stats`), or the running ones themselves.
        """


class Generations(NamedTuple):
    """Training in generations: each learns from what the one before predicts for the images.

    Each generation is a separate run. A method that has them takes the argument `generation`, which
    one it is, from 0; with `pick` also `class_prior`, the class counts of the first one's labelled
    images.
    """

    number: int
    # (probabilities [N, C] of the unlabelled images without a label, class counts [C] of the
    # first labelled images) -> labels [N] for the next generation, -1: no label; where pick is None
    # no image gets one
    pick: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None
    # (probabilities [R, N, C] that the runs of a generation give the unlabelled images) -> what the
    # next one is given as `Sizes.guesses`; None: nothing
    targets: Callable[[np.ndarray], np.ndarray] | None = None
    runs: int = 1  # of each generation but the last, which has one; their seeds count up


class Method(NamedTuple):
    """A learning method; `loss` is deterministic."""

    # The augmentation of each unlabelled view: a knob of `config.augment`, or one of
    # `augment.policies.PLAIN`, as "none".
    views: tuple[str, ...]
    # (sizes) -> method state, a pytree
    init: Callable[[Sizes], PyTree]
    # (key, batch) -> the random numbers the loss uses, a pytree. A method that is not joint
    # returns arrays whose first axis counts images; a device is given those of its own.
    noise: Callable[[jax.Array, Batch], PyTree]
    # (params, ema_params, apply, batch, noise, state, progress) -> (scalar, Aux)
    loss: Callable[[PyTree, PyTree, Apply, Batch, PyTree, PyTree, Progress], tuple[jax.Array, Aux]]
    # Whether the loss combines images with each other (MixMatch), or has a state. On several
    # devices such a method is given the whole batch on each, and `apply` spreads the rows; any
    # other method is given each device's rows, and its loss and logs must be means over them.
    joint: bool = False
    # The augmentation of the labelled images.
    labeled_view: str = "weak"
    # Those of further views of the labelled images: `Batch.more_labeled`.
    more_labeled_views: tuple[str, ...] = ()
    # Further layers on the model's features, see `heads.py`.
    heads: tuple[Head, ...] = ()
    # Whether the labelled loss is of `Batch.adjusted` logits, so that they can be adjusted.
    adjustable: bool = False
    # How it trains in generations; None: once.
    generations: Generations | None = None


def no_state(sizes: Sizes) -> PyTree:
    """The `init` of a method without state."""
    del sizes
    return ()


def no_noise(key: jax.Array, batch: Batch) -> PyTree:
    """The `noise` of a method whose loss is deterministic by itself."""
    del key, batch
    return ()
