"""What to watch in the guessed labels, computed beside the loss."""

import jax
import jax.numpy as jnp
from clu.metrics import Average

from ssljax.methods.method import Aux

Metrics = dict[str, Average]


def monitors(aux: Aux, unlabeled_labels: jax.Array | None) -> Metrics:
    """What to watch in the guessed labels; none of it flows back into training.

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


def means(metrics: Metrics) -> dict[str, jax.Array]:
    """Sums of metrics -> their means, `[]` float32; NaN for a mean over nothing.

    The shares of the predicted classes, a vector, become their entropy in nats.
    """
    found = {name: average.total / average.count for name, average in metrics.items()}
    shares = found.pop("guess/classes", None)
    if shares is not None:
        entropy = -jnp.sum(shares * jnp.log(jnp.maximum(shares, 1e-12)))
        found["guess/class_entropy"] = entropy
    return found
