"""SoftMatch (Chen et al., 2023), as USB, its authors' library, computes it.

https://arxiv.org/abs/2301.10921; `semilearn/algorithms/softmatch` of USB.
"""

import jax
import jax.numpy as jnp

from ssljax import losses
from ssljax.checks import check_non_negative, check_positive, check_probability, check_range
from ssljax.methods.method import Aux, Method, no_noise


def softmatch(
    *,
    n_sigma: float = 2.0,
    unlabeled_weight: float = 1.0,
    momentum: float = 0.999,
    dist_align: bool = True,
    dist_uniform: bool = True,
) -> Method:
    """FixMatch without a threshold: less confident guesses count less.

    Guesses are aligned to the uniform distribution first. The weight of a guess is 1 where its
    confidence c is at least the average confidence μ, and exp(-(c - μ)² / (2σ²/n²)) below it; σ² is
    the average variance of confidences. The label is the likeliest class of the guess before the
    alignment. All averages include this step. The average guess, by which guesses are divided,
    begins with the first step's mean.

    Args:
      n_sigma: how fast weights fall (n): the weight is exp(-n²/2) at μ - σ; above 0.
      unlabeled_weight: weight of the unlabelled loss (λu).
      momentum: momentum of the averages, 0..1.
      dist_align: whether guesses are aligned before they are weighed.
      dist_uniform: whether they are aligned to the uniform distribution; False: to the average
        prediction for labelled images.
    """
    check_positive(n_sigma=n_sigma)
    check_non_negative(unlabeled_weight=unlabeled_weight)
    check_probability(momentum=momentum)

    def init(sizes):
        uniform = jnp.full(sizes.classes, 1 / sizes.classes)
        return {
            "mean": jnp.array(1 / sizes.classes),  # μ
            "variance": jnp.array(1.0),  # σ²
            "guesses": uniform,  # average guess; the first step replaces it
            "target": uniform,  # the distribution that guesses are aligned to
        }

    def average(old, new):
        return momentum * old + (1 - momentum) * new

    def loss(params, ema_params, apply, batch, noise, state, progress):
        del ema_params, noise
        passed = losses.weak_and_strong(apply, params, batch)
        x_logits, weak_logits, strong_logits, batch_stats = passed
        check_range("batch_size · uratio", len(weak_logits), 2)  # one image has no variance
        classes = x_logits.shape[-1]

        guess = jax.nn.softmax(weak_logits)
        mean = jnp.mean(guess, axis=0)
        guesses = jnp.where(progress.step == 0, mean, average(state["guesses"], mean))
        target = state["target"]
        if not dist_uniform:
            labeled = jax.nn.softmax(jax.lax.stop_gradient(x_logits))
            target = average(target, jnp.mean(labeled, axis=0))
        aligned = losses.align(guess, target, guesses) if dist_align else guess
        confidence = jnp.max(aligned, axis=-1)
        mu = average(state["mean"], jnp.mean(confidence))
        variance = average(state["variance"], jnp.var(confidence, ddof=1))
        below = jnp.minimum(confidence - mu, 0)
        weight = jnp.exp(-jnp.square(below) / (2 * variance / n_sigma**2))

        pseudo_labels = jax.nn.one_hot(jnp.argmax(guess, axis=-1), classes)
        labels = jax.nn.one_hot(batch.labels, classes)
        xe = jnp.mean(losses.cross_entropy(batch.adjusted(x_logits), labels))
        xeu = jnp.mean(weight * losses.cross_entropy(strong_logits, pseudo_labels))
        logs = {"loss/xe": xe, "loss/xeu": xeu, "confidence/mean": mu, "confidence/var": variance}
        after = {"mean": mu, "variance": variance, "guesses": guesses, "target": target}
        return xe + unlabeled_weight * xeu, Aux(batch_stats, after, logs, guess, weight)

    views = ("weak", "strong")
    return Method(views, init, no_noise, loss, joint=True, adjustable=True)
