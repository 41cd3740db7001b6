"""Mean Teacher (Tarvainen & Valpola, 2017), as `mean_teacher.py` of google-research/mixmatch.

https://arxiv.org/abs/1703.01780
"""

import jax
import jax.numpy as jnp

from ssljax import losses
from ssljax.checks import check_non_negative, check_range
from ssljax.methods.method import Aux, Method, no_noise, no_state


def mean_teacher(*, consistency_weight: float = 50.0, warmup_pos: float = 0.4) -> Method:
    """The prediction for one weak view learns the EMA model's prediction for another.

    The teacher is the EMA model of the previous step, with BatchNorm over the images of its view.
    Labelled images and each view are normalised separately, and only the labelled images move the
    running statistics.

    Args:
      consistency_weight: weight of the squared error at the end of its ramp. (Published: 50 for
        CIFAR-10, 150 for SVHN, 180 with its extra images.)
      warmup_pos: share of the run over which the weight rises linearly from 0, above 0 to 1.
    """
    check_non_negative(consistency_weight=consistency_weight)
    check_range("warmup_pos", warmup_pos, 0, 1, open_low=True)

    def loss(params, ema_params, apply, batch, noise, state, progress):
        del noise
        first, second = batch.views
        x_logits, batch_stats = apply(params, batch.labeled)
        guess = jax.lax.stop_gradient(jax.nn.softmax(apply(ema_params, first)[0]))
        logits, _ = apply(params, second)

        labels = jax.nn.one_hot(batch.labels, x_logits.shape[-1])
        xe = jnp.mean(losses.cross_entropy(batch.adjusted(x_logits), labels))
        mt = jnp.mean(losses.squared_error(logits, guess))
        weight = consistency_weight * jnp.clip(progress.fraction / warmup_pos, 0, 1)
        logs = {"loss/xe": xe, "loss/mt": mt, "consistency_weight": weight}
        return xe + weight * mt, Aux(batch_stats, state, logs, guess)

    return Method(views=("weak", "weak"), init=no_state, noise=no_noise, loss=loss, adjustable=True)
