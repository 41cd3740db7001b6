"""CReST (Wei et al., 2021), as `util/semisup.py` and `data/cifar.py` of google-research/crest.

https://arxiv.org/abs/2102.09559
"""

import jax
import jax.numpy as jnp
import numpy as np

from ssljax import losses
from ssljax.checks import check_non_negative, check_positive, check_probability, check_range
from ssljax.methods.method import Aux, Generations, Method, no_noise

_STEPS = 128  # the alignment averages the guesses of this many steps


def crest(
    *,
    threshold: float = 0.95,
    unlabeled_weight: float = 1.0,
    generations: int = 6,
    alpha: float = 3.0,
    dist_align: bool = True,
    last_power: float = 0.5,
    generation: int = 0,
    class_prior: tuple[float, ...] = (),
) -> Method:
    """FixMatch in generations, each from fresh weights and with more labels of rare classes.

    The averaged model of a generation predicts the unlabelled images. The most confident images of
    each class become labelled images of the next generation: all of the rarest class, and the share
    (N_(C+1-c) / N_1)^(1/α) of the c-th most frequent class, where N_1 ≥ N_2 ≥ … are the numbers of
    labelled images per class in the first generation. CReST+ aligns guesses too: it multiplies them
    by these frequencies to a power, which falls from 1 to its last value over the generations, and
    divides them by the mean guess of the previous 128 steps.

    Args:
      threshold: least probability (`>=`) of a guess that counts, 0..1.
      unlabeled_weight: weight of the unlabelled loss (λu).
      generations: number of generations.
      alpha: α, above 0.
      dist_align: whether guesses are aligned.
      last_power: the power in the last generation (the published `dalign_t`).
      generation: number of this generation, from 0; `generations.py` sets it.
      class_prior: class frequencies in the first generation, set by `generations.py`; (): the
        frequencies among the labelled images.
    """
    check_probability(threshold=threshold)
    check_non_negative(unlabeled_weight=unlabeled_weight, last_power=last_power)
    check_positive(alpha=alpha)
    check_range("generations", generations, 1, 1000)
    check_range("generation", generation, 0, generations - 1)
    passed = generation / max(generations - 1, 1)
    power = (1 - passed) + passed * last_power

    def init(sizes):
        if not dist_align:
            return ()
        frequencies = np.maximum(class_prior or sizes.class_counts, 1e-12)
        target = (frequencies / np.sum(frequencies)) ** power
        uniform = jnp.full(sizes.classes, 1 / sizes.classes)
        return {
            "target": jnp.asarray(target / np.sum(target), jnp.float32),
            "guesses": jnp.tile(uniform, (_STEPS, 1)),
        }

    def loss(params, ema_params, apply, batch, noise, state, progress):
        del ema_params, noise, progress
        passed = losses.weak_and_strong(apply, params, batch)
        x_logits, weak_logits, strong_logits, batch_stats = passed
        classes = x_logits.shape[-1]

        guess = jax.nn.softmax(weak_logits)
        if dist_align:
            guesses, mean = state["guesses"], jnp.mean(guess, axis=0)
            guess = losses.align(guess, state["target"], jnp.mean(guesses, axis=0))
            state = state | {"guesses": losses.push(guesses, mean[None])}
        mask = (jnp.max(guess, axis=-1) >= threshold).astype(jnp.float32)
        pseudo_labels = jax.nn.one_hot(jnp.argmax(guess, axis=-1), classes)

        labels = jax.nn.one_hot(batch.labels, classes)
        xe = jnp.mean(losses.cross_entropy(batch.adjusted(x_logits), labels))
        xeu = jnp.mean(mask * losses.cross_entropy(strong_logits, pseudo_labels))
        logs = {"loss/xe": xe, "loss/xeu": xeu}
        return xe + unlabeled_weight * xeu, Aux(batch_stats, state, logs, guess, mask)

    def pick(probabilities, class_counts):
        return _pick_labels(probabilities, class_counts, alpha)

    return Method(
        views=("weak", "strong"),
        init=init,
        noise=no_noise,
        loss=loss,
        joint=True,
        adjustable=True,
        generations=Generations(generations, pick),
    )


def _pick_labels(probabilities: np.ndarray, class_counts: np.ndarray, alpha: float) -> np.ndarray:
    """The new labels of the unlabelled images, `[N]` int64; -1: no label.

    Args:
      probabilities: `[N, C]` predictions for the images.
      class_counts: `[C]` number of labelled images per class in the first generation.
      alpha: α, above 0.
    """
    predicted, sureness = probabilities.argmax(axis=1), probabilities.max(axis=1)
    order = np.argsort(-class_counts, kind="stable")  # the most frequent class first
    counts = np.maximum(class_counts[order], 1)
    labels = np.full(len(probabilities), -1)
    for c, share in zip(order, (counts[::-1] / counts[0]) ** (1 / alpha), strict=True):
        images = np.flatnonzero(predicted == c)
        surest = images[np.argsort(-sureness[images], kind="stable")]
        labels[surest[: int(len(images) * share)]] = c
    return labels
