"""Metrics of the guessed labels, computed besides the loss."""

import jax
import jax.numpy as jnp
from clu.metrics import Average

from ssljax.methods.method import Aux

Metrics = dict[str, Average]


def monitors(aux: Aux, unlabeled_labels: jax.Array | None) -> Metrics:
    """Metrics of the guessed labels, which do not affect training.

    Args:
      unlabeled_labels: int `[M]`, the hidden labels of the unlabelled images, -1: unknown; None:
        there are no unlabelled images.
    """
    if aux.guess is None or unlabeled_labels is None:
        return {}
    confidence = jnp.max(aux.guess, axis=-1)
    predicted = jnp.argmax(aux.guess, axis=-1)
    mask = jnp.ones_like(confidence) if aux.mask is None else aux.mask
    known = (unlabeled_labels >= 0).astype(jnp.float32)
    correct = (predicted == unlabeled_labels).astype(jnp.float32)

    def mean(values, weights):
        return Average(jnp.sum(values * weights), jnp.sum(weights))

    everything = jnp.ones_like(confidence)
    rate = {} if aux.mask is None else {"guess/mask_rate": mean(mask, everything)}
    classes = jnp.sum(jax.nn.one_hot(predicted, aux.guess.shape[-1]), axis=0)
    return rate | {
        "guess/confidence": mean(confidence, everything),
        "guess/accuracy": mean(correct, known),
        "guess/accuracy_masked": mean(correct, known * mask),
        "guess/classes": Average(classes, jnp.asarray(len(predicted), jnp.float32)),
    }


def class_monitors(aux: Aux, unlabeled_labels: jax.Array | None) -> Metrics:
    """Like `monitors`, per class: sums and counts are `[C]`.

    `guess/class_mask_rate` is the mean mask of the images that are guessed to be of a class;
    `guess/class_accuracy` is the accuracy of guesses for the images whose hidden label it is.
    """
    if aux.guess is None or unlabeled_labels is None:
        return {}
    num_classes, predicted = aux.guess.shape[-1], jnp.argmax(aux.guess, axis=-1)
    right = (predicted == unlabeled_labels).astype(jnp.float32)

    def mean(values, classes):
        of_class = jax.nn.one_hot(classes, num_classes)  # [M, C]; zeros for -1
        return Average(jnp.sum(of_class * values[:, None], axis=0), jnp.sum(of_class, axis=0))

    found = {"guess/class_accuracy": mean(right, unlabeled_labels)}
    if aux.mask is not None:
        found["guess/class_mask_rate"] = mean(aux.mask, predicted)
    return found


def means(metrics: Metrics) -> dict[str, jax.Array]:
    """Sums of metrics -> their means, `[]` float32; NaN for a mean over nothing.

    The vector of the predicted classes' shares becomes its entropy in nats. Metrics of
    `class_monitors` are left out.
    """
    found = {
        name: average.total / average.count
        for name, average in metrics.items()
        if average.count.ndim == 0
    }
    shares = found.pop("guess/classes", None)
    if shares is not None:
        entropy = -jnp.sum(shares * jnp.log(jnp.maximum(shares, 1e-12)))
        found["guess/class_entropy"] = entropy
    return found
