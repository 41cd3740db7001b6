"""The baseline: cross-entropy on the labelled images only."""

import jax
import jax.numpy as jnp

from ssljax import losses
from ssljax.checks import check_choice
from ssljax.methods.method import Aux, Method, no_noise, no_state


def supervised(*, view: str = "weak") -> Method:
    """Learns from labelled images only; unlabelled ones are never read.

    Args:
      view: augmentation of the images, weak or strong. The published baselines with RandAugment and
        CTAugment learn from strong views.
    """
    check_choice("view", view, ("weak", "strong"))

    def loss(params, ema_params, apply, batch, noise, state, progress):
        del ema_params, noise, progress
        logits, batch_stats = apply(params, batch.labeled)
        targets = jax.nn.one_hot(batch.labels, logits.shape[-1])
        xe = jnp.mean(losses.cross_entropy(batch.adjusted(logits), targets))
        return xe, Aux(batch_stats, state, {"loss/xe": xe})

    return Method(
        views=(), init=no_state, noise=no_noise, loss=loss, labeled_view=view, adjustable=True
    )
