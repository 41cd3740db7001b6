"""Pseudo-labels (Lee, 2013), as `pseudo_label.py` of google-research/mixmatch computes them.

http://deeplearning.net/wp-content/uploads/2013/03/pseudo_label_final.pdf
"""

import jax
import jax.numpy as jnp

from ssljax import losses
from ssljax.checks import check_non_negative, check_probability, check_range
from ssljax.methods.method import Aux, Method, no_noise, no_state


def pseudo_label(
    *, threshold: float = 0.95, consistency_weight: float = 1.0, warmup_pos: float = 0.4
) -> Method:
    """Each confident prediction is the label of its image.

    Labelled and unlabelled images are normalised separately, and only the labelled ones move the
    running statistics. Images below the threshold count as zero in a mean over all of them.

    Args:
      threshold: probability above which (`>`) a prediction counts, 0..1.
      consistency_weight: weight of the unlabelled loss at the end of its ramp. (Published: 1 for
        CIFAR-10, 2 for SVHN.)
      warmup_pos: share of the run over which the weight rises linearly from 0, above 0 to 1.
    """
    check_probability(threshold=threshold)
    check_non_negative(consistency_weight=consistency_weight)
    check_range("warmup_pos", warmup_pos, 0, 1, open_low=True)

    def loss(params, ema_params, apply, batch, noise, state, progress):
        del ema_params, noise
        (images,) = batch.views
        x_logits, batch_stats = apply(params, batch.labeled)
        logits, _ = apply(params, images)
        classes = logits.shape[-1]

        guess = jax.nn.softmax(jax.lax.stop_gradient(logits))
        mask = (jnp.max(guess, axis=-1) > threshold).astype(jnp.float32)
        pseudo_labels = jax.nn.one_hot(jnp.argmax(guess, axis=-1), classes)

        labels = jax.nn.one_hot(batch.labels, classes)
        xe = jnp.mean(losses.cross_entropy(batch.adjusted(x_logits), labels))
        pl = jnp.mean(mask * losses.cross_entropy(logits, pseudo_labels))
        weight = consistency_weight * jnp.clip(progress.fraction / warmup_pos, 0, 1)
        logs = {"loss/xe": xe, "loss/pl": pl, "consistency_weight": weight}
        return xe + weight * pl, Aux(batch_stats, state, logs, guess, mask)

    return Method(views=("weak",), init=no_state, noise=no_noise, loss=loss, adjustable=True)
