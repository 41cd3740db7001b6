"""The Π-model (Laine & Aila, 2017), as `pi_model.py` of google-research/mixmatch computes it.

https://arxiv.org/abs/1610.02242
"""

import jax
import jax.numpy as jnp

from ssljax import losses
from ssljax.checks import check_non_negative, check_range
from ssljax.methods.method import Aux, Method, no_noise, no_state


def pi_model(*, consistency_weight: float = 20.0, warmup_pos: float = 0.4) -> Method:
    """Predictions for two weak views of an image agree.

    The first view's prediction is the target, without gradient. Labelled images and each view are
    normalised separately, and only the labelled images move the running statistics.

    Args:
      consistency_weight: weight of the squared error at the end of its ramp. (Published: 20 for
        CIFAR-10, 5 for SVHN; the default of the script is 10.)
      warmup_pos: share of the run over which the weight rises linearly from 0, above 0 to 1.
    """
    check_non_negative(consistency_weight=consistency_weight)
    check_range("warmup_pos", warmup_pos, 0, 1, open_low=True)

    def loss(params, ema_params, apply, batch, noise, state, progress):
        del ema_params, noise
        first, second = batch.views
        x_logits, batch_stats = apply(params, batch.labeled)
        guess = jax.lax.stop_gradient(jax.nn.softmax(apply(params, first)[0]))
        logits, _ = apply(params, second)

        labels = jax.nn.one_hot(batch.labels, x_logits.shape[-1])
        xe = jnp.mean(losses.cross_entropy(batch.adjusted(x_logits), labels))
        pm = jnp.mean(losses.squared_error(logits, guess))
        weight = consistency_weight * jnp.clip(progress.fraction / warmup_pos, 0, 1)
        logs = {"loss/xe": xe, "loss/pm": pm, "consistency_weight": weight}
        return xe + weight * pm, Aux(batch_stats, state, logs, guess)

    return Method(views=("weak", "weak"), init=no_state, noise=no_noise, loss=loss, adjustable=True)
