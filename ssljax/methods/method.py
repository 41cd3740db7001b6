"""The interface between a learning method and the training step.

A method is a NamedTuple of pure functions. It never sees devices, optimizers or the labels of
unlabelled images. Its loss draws no random numbers: `noise` returns them, or a key where their
number depends on the classes. So the loss can be tested with numbers calculated by hand, and
exported as a graph.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

from ssljax.heads import Head

PyTree = Any


class Batch(NamedTuple):
    """The data that a loss may use. Images are float32 in [-1, 1]."""

    labeled: jax.Array  # [B, H, W, C]
    labels: jax.Array  # [B] int32, 0..num_classes-1
    views: tuple[jax.Array, ...]  # each [M, H, W, C]: the unlabelled images, augmented per view
    # The positions of these images in the split's lists of labelled and of unlabelled images. An
    # image can be twice in a batch.
    labeled_index: jax.Array | None = None  # [B] int32
    unlabeled_index: jax.Array | None = None  # [M] int32
    more_labeled: tuple[jax.Array, ...] = ()  # each [B, H, W, C]: `Method.more_labeled_views`
    # [classes] float32, τ · log of each class's share of the labelled images; None: τ is 0
    adjustment: jax.Array | np.ndarray | None = None

    def adjusted(self, logits: jax.Array) -> jax.Array:
        """The logits `[B, classes]` of labelled images that enter their loss.

        This is logit adjustment (Menon et al., 2021, equation 10), with `config.logit_adjustment`
        for τ. Guesses come from the logits without adjustment.
        """
        return logits if self.adjustment is None else logits + self.adjustment[None]


class Progress(NamedTuple):
    """The progress of training before this step."""

    images: jax.Array  # [] float32, number of labelled images seen
    fraction: jax.Array  # [] float32, completed fraction of the planned steps, 0..1
    step: jax.Array | int = 0  # [] int32, number of completed steps


class Sizes(NamedTuple):
    """Input of a method's first state: sizes of the data and of a step, and guesses."""

    classes: int
    class_counts: np.ndarray  # [classes] int64, number of labelled images of each class
    unlabeled: int  # number of unlabelled images
    batch: tuple[int, int] = (0, 0)  # labelled and unlabelled images of a step, over all devices
    # [unlabeled, classes] float32, result of `Generations.targets`; None: the first generation
    guesses: np.ndarray | None = None

    @property
    def labeled(self) -> int:
        """Number of labelled images."""
        return int(np.sum(self.class_counts))


class Aux(NamedTuple):
    """The outputs of a loss besides its value."""

    batch_stats: PyTree  # the BatchNorm statistics after this step
    state: PyTree  # the method's new state
    logs: dict[str, jax.Array]  # name -> [] float32, a mean over the batch
    guess: jax.Array | None = None  # [M, C] label distributions guessed for the unlabelled images
    mask: jax.Array | None = None  # [M] float32, how much each guess counted; None: fully


class Apply(Protocol):
    """The network."""

    def __call__(self, params: PyTree, images: jax.Array) -> tuple[jax.Array, PyTree]:
        """Images `[N, H, W, C]` -> logits `[N, C]` float32, new batch statistics; in training mode.

        Images can be `losses.Mixed` too.

        BatchNorm normalises over exactly the images of one call; the returned statistics are
        those from before this step, moved towards those of the call.
        """

    def with_features(
        self, params: PyTree, images: jax.Array
    ) -> tuple[jax.Array, jax.Array, PyTree]:
        """The same pass, which also returns the features `[N, D]` float32.

        The features are the input of the model's last layer and of `Method.heads`.

        Returns:
          Logits, features, new batch statistics.
        """

    def evaluate(self, params: PyTree, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Logits and features in evaluation mode, for a teacher.

        BatchNorm uses the statistics that belong to the moving average of the weights: averages of
        the running statistics (`config.ema_batch_stats`), or the running statistics themselves.
        """


class Generations(NamedTuple):
    """Training in generations: each one learns from the predictions of the one before.

    Each generation is a separate run. Such a method takes the argument `generation`, the number of
    the generation from 0. With `pick` it also takes `class_prior`, the class counts of the labelled
    images in the first generation.
    """

    number: int
    # (probabilities [N, C] of the unlabelled images without a label, class counts [C] of the
    # first labelled images) -> labels [N] for the next generation, -1: no label. If pick is None,
    # no image gets a label.
    pick: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None
    # (probabilities [R, N, C] from the R runs of a generation for the unlabelled images) ->
    # `Sizes.guesses` of the next generation; None: it has no guesses
    targets: Callable[[np.ndarray], np.ndarray] | None = None
    runs: int = 1  # runs per generation, with consecutive seeds; the last generation has one


class Method(NamedTuple):
    """A learning method; `loss` is deterministic."""

    # The augmentation of each unlabelled view: a field of `config.augment`, or a name in
    # `augment.policies.PLAIN`, such as "none".
    views: tuple[str, ...]
    # (sizes) -> method state, a pytree
    init: Callable[[Sizes], PyTree]
    # (key, batch) -> the random numbers the loss uses, a pytree. A method that is not joint
    # returns arrays whose first axis counts images; each device gets the rows of its images.
    noise: Callable[[jax.Array, Batch], PyTree]
    # (params, ema_params, apply, batch, noise, state, progress) -> (scalar, Aux)
    loss: Callable[[PyTree, PyTree, Apply, Batch, PyTree, PyTree, Progress], tuple[jax.Array, Aux]]
    # Whether the loss combines images with each other (MixMatch), or changes a state. On several
    # devices such a method gets the entire batch on each device, and `apply` distributes the rows.
    # Any other method gets the rows of one device, and its loss and logs must be means over rows.
    joint: bool = False
    # The augmentation of the labelled images.
    labeled_view: str = "weak"
    # The augmentations of further views of the labelled images, `Batch.more_labeled`.
    more_labeled_views: tuple[str, ...] = ()
    # Further layers on the model's features, see `heads.py`.
    heads: tuple[Head, ...] = ()
    # Whether the labelled loss uses `Batch.adjusted`, so that logit adjustment is possible.
    adjustable: bool = False
    # How the method trains in generations; None: it trains once.
    generations: Generations | None = None


def no_state(sizes: Sizes) -> PyTree:
    """The `init` of a method without state."""
    del sizes
    return ()


def no_noise(key: jax.Array, batch: Batch) -> PyTree:
    """The `noise` of a method whose loss needs no random numbers."""
    del key, batch
    return ()
