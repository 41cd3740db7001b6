"""AdaMatch (Berthelot et al., 2021), as in google-research/adamatch, `semi_supervised/adamatch.py`.

https://arxiv.org/abs/2106.04732; the variant is `semilearn/algorithms/adamatch` of USB.
"""

import jax
import jax.numpy as jnp

from ssljax import losses
from ssljax.checks import check_choice, check_non_negative, check_probability
from ssljax.methods.method import Aux, Method

_STEPS = 128  # the alignment averages the guesses of this many steps


def adamatch(
    *,
    threshold: float = 0.9,
    unlabeled_weight: float = 1.0,
    momentum: float = 0.999,
    variant: str = "authors",
) -> Method:
    """FixMatch with guesses aligned to predictions for labelled images, and a relative threshold.

    Labelled images have a weak and a strong view, and two passes: one alone, whose BatchNorm
    statistics are dropped, and one with the unlabelled images. Each of their logits is drawn
    uniformly between those of the two passes. A guess counts if its confidence is at least a
    fraction of the mean confidence for weak labelled images. Guesses are multiplied by the average
    prediction for these images, and divided by the mean guess of the last 128 steps; both include
    this step. λu follows half a cosine from 0 to 1 over the first half of the run, and from 1 to
    its last value over the second half.

    Args:
      threshold: this fraction of the mean confidence, 0..1 (USB's recipes: 0.95).
      unlabeled_weight: weight of the unlabelled loss at the end (λu; the published flag `wu`).
      momentum: momentum of the averages, 0..1.
      variant: `authors`, or `usb`, which has one pass over weak labelled, weak and strong images,
        an exponential average of guesses that begins with the first step's mean, and a constant λu.
    """
    check_probability(threshold=threshold, momentum=momentum)
    check_non_negative(unlabeled_weight=unlabeled_weight)
    check_choice("variant", variant, ("authors", "usb"))
    authors = variant == "authors"

    def init(sizes):
        uniform = jnp.full(sizes.classes, 1 / sizes.classes)
        guesses = jnp.tile(uniform, (_STEPS, 1)) if authors else uniform
        return {"labeled": uniform, "guesses": guesses}

    def noise(key, batch):
        del batch
        return key if authors else ()

    def average(old, new):
        return momentum * old + (1 - momentum) * new

    def loss(params, ema_params, apply, batch, noise, state, progress):
        del ema_params
        passes = _interpolated if authors else _joint
        views, weak_logits, strong_logits, batch_stats = passes(apply, params, batch, noise)
        classes = weak_logits.shape[-1]
        known, guess = (jax.nn.softmax(jax.lax.stop_gradient(x)) for x in (views[0], weak_logits))
        least = threshold * jnp.mean(jnp.max(known, axis=-1))

        labeled = average(state["labeled"], jnp.mean(known, axis=0))
        mean = jnp.mean(guess, axis=0)
        if authors:
            guesses = losses.push(state["guesses"], mean[None])
            seen, weight = jnp.mean(guesses, axis=0), _risen(progress.fraction, unlabeled_weight)
        else:
            guesses = jnp.where(progress.step == 0, mean, average(state["guesses"], mean))
            seen, weight = guesses, unlabeled_weight
        aligned = losses.align(guess, labeled, seen)
        mask = (jnp.max(aligned, axis=-1) >= least).astype(jnp.float32)
        pseudo_labels = jax.nn.one_hot(jnp.argmax(aligned, axis=-1), classes)

        labels = jax.nn.one_hot(batch.labels, classes)
        errors = [losses.cross_entropy(batch.adjusted(x), labels) for x in views]
        xe = sum(map(jnp.mean, errors)) / len(views)
        xeu = jnp.mean(mask * losses.cross_entropy(strong_logits, pseudo_labels))
        logs = {"loss/xe": xe, "loss/xeu": xeu, "threshold": least, "unlabeled_weight": weight}
        after = {"labeled": labeled, "guesses": guesses}
        return xe + weight * xeu, Aux(batch_stats, after, logs, aligned, mask)

    return Method(
        views=("weak", "strong"),
        init=init,
        noise=noise,
        loss=loss,
        joint=True,
        adjustable=True,
        more_labeled_views=("strong",) if authors else (),
    )


def _interpolated(apply, params, batch, key):
    """The forward passes of the authors' variant.

    Returns:
      The logits of the weak and the strong views of labelled images, each `[B, C]`; the logits of
      weak views, without gradient, and of strong views, each `[M, C]`; new batch statistics.
    """
    labeled = jnp.concatenate([batch.labeled, *batch.more_labeled])
    alone, _ = apply(params, labeled)
    among = batch._replace(labeled=labeled)
    x_logits, weak_logits, strong_logits, stats = losses.weak_and_strong(apply, params, among)
    x_logits += jax.random.uniform(key, x_logits.shape) * (alone - x_logits)
    return jnp.split(x_logits, 2), weak_logits, strong_logits, stats


def _joint(apply, params, batch, noise):
    """Like `_interpolated`, with one pass, and only the weak view of labelled images."""
    del noise
    x_logits, *others = losses.weak_and_strong(apply, params, batch)
    return [x_logits], *others


def _risen(fraction, last):
    """λu after a fraction of the run, 0..1.

    The source is `ScheduleCosPhases(1, [(0.5, 1), (1, last)], start_value=0)` of `shared/train.py`.
    """

    def rise(start):
        return (1 - jnp.cos(jnp.pi * (fraction - start) / 0.5)) / 2

    return jnp.where(fraction <= 0.5, rise(0), 1 + (last - 1) * rise(0.5))
