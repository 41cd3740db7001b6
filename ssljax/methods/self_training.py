"""Self-training (Scudder, 1965; Lee, 2013) in rounds, each with a new student.

A round's model predicts the unlabelled images. The next round starts from fresh weights (or those
of `config.init_from`) and learns these predictions. If a round has several runs, they vote, as in
V-PET (`algorithms/pet`, https://arxiv.org/abs/2509.07730).
"""

import jax
import jax.numpy as jnp
import numpy as np

from ssljax import losses
from ssljax.checks import (
    check_choice,
    check_non_negative,
    check_positive,
    check_probability,
    check_range,
)
from ssljax.methods.method import Aux, Generations, Method, no_noise


def self_training(
    *,
    rounds: int = 3,
    runs: int = 1,
    soft: bool = False,
    threshold: float = 0.0,
    temperature: float = 1.0,
    unlabeled_weight: float = 1.0,
    labeled_weight: float = 1.0,
    view: str = "weak",
    generation: int = 0,
) -> Method:
    """The first round learns the labelled images; later rounds also learn predictions.

    They are the predictions of the previous round for the unlabelled images, and stay the same
    throughout a round.

    Args:
      rounds: number of rounds; each has a run directory, `generation=<round>`.
      runs: number of runs per round, with consecutive seeds, whose predictions are combined; the
        last round has one run.
      soft: whether the predictions are probabilities, the mean over the runs; else the class with
        most votes.
      threshold: least mean probability of the likeliest class for an image to count, 0..1.
      temperature: temperature of the sharpening of soft predictions, above 0.
      unlabeled_weight: weight of the loss on unlabelled images.
      labeled_weight: weight of the loss on labelled images in later rounds (V-PET: 0).
      view: augmentation of the unlabelled images, weak or strong.
      generation: number of this round, from 0; `generations.py` sets it.
    """
    check_range("rounds", rounds, 1, 1000)
    check_range("runs", runs, 1, 100)
    check_probability(threshold=threshold)
    check_positive(temperature=temperature)
    check_non_negative(unlabeled_weight=unlabeled_weight, labeled_weight=labeled_weight)
    check_choice("view", view, ("weak", "strong"))
    check_range("generation", generation, 0, rounds - 1)
    first = generation == 0

    def init(sizes):
        if first:
            return ()
        known = sizes.guesses  # None if only the shapes are needed
        empty = np.zeros((sizes.unlabeled, sizes.classes), np.float32)
        return {"targets": jnp.asarray(empty if known is None else known, jnp.float32)}

    def loss(params, ema_params, apply, batch, noise, state, progress):
        del ema_params, noise, progress
        n = len(batch.labeled)
        logits, batch_stats = apply(params, jnp.concatenate([batch.labeled, *batch.views]))
        labels = jax.nn.one_hot(batch.labels, logits.shape[-1])
        xe = jnp.mean(losses.cross_entropy(batch.adjusted(logits[:n]), labels))
        if first:
            return xe, Aux(batch_stats, state, {"loss/xe": xe})
        target = state["targets"][batch.unlabeled_index]
        xeu = jnp.mean(losses.cross_entropy(logits[n:], target))
        counts = jnp.sum(target, axis=-1)
        guess = jnp.where(counts[:, None] > 0, target, 1 / logits.shape[-1])
        logs = {"loss/xe": xe, "loss/xeu": xeu}
        total = labeled_weight * xe + unlabeled_weight * xeu
        return total, Aux(batch_stats, state, logs, guess, counts)

    def targets(probabilities):
        return _make_targets(probabilities, soft, threshold, temperature)

    return Method(
        views=() if first else (view,),
        init=init,
        noise=no_noise,
        loss=loss,
        adjustable=True,
        generations=Generations(rounds, targets=targets, runs=runs),
    )


def _make_targets(
    probabilities: np.ndarray, soft: bool, threshold: float, temperature: float
) -> np.ndarray:
    """The targets of the next round, `[N, C]` float32; images with rows of zeros do not count.

    Args:
      probabilities: `[R, N, C]` predictions of R runs.
      soft, threshold, temperature: see `self_training`.
    """
    mean = probabilities.mean(axis=0)
    classes = mean.shape[-1]
    if soft:
        powers = mean ** (1 / temperature)
        found = powers / powers.sum(axis=-1, keepdims=True)
    else:
        votes = np.eye(classes)[probabilities.argmax(axis=-1)].sum(axis=0)
        found = np.eye(classes)[np.argmax(votes + 0.5 * mean, axis=-1)]  # the mean breaks ties
    return np.where(mean.max(axis=-1, keepdims=True) >= threshold, found, 0).astype(np.float32)
