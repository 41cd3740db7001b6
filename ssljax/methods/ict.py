"""ICT, interpolation consistency training (Verma et al., 2019), as google-research/mixmatch has it.

https://arxiv.org/abs/1903.03825
"""

import jax
import jax.numpy as jnp

from ssljax import losses
from ssljax.checks import check_non_negative, check_positive, check_range
from ssljax.methods.method import Aux, Method, no_state


def ict(
    *, beta: float = 0.75, consistency_weight: float = 1000.0, warmup_pos: float = 0.4
) -> Method:
    """The prediction for a mix of two unlabelled images is the mix of a teacher's predictions.

    The teacher is the EMA model, with BatchNorm over the unlabelled images. The i-th image of the
    batch is mixed with the i-th from the end. Only the labelled images move the running statistics.
    (The published script, `ict.py`, reads two views of each image and uses the first.)

    Args:
      beta: parameter of the Beta(β, β) distribution of the mixing weight λ, above 0.
      consistency_weight: weight of the squared error at the end of its ramp. (The defaults of β and
        this are those of the published CIFAR-10 runs; the script has 0.5 and 50.)
      warmup_pos: share of the run over which the weight rises linearly from 0, above 0 to 1.
    """
    check_positive(beta=beta)
    check_non_negative(consistency_weight=consistency_weight)
    check_range("warmup_pos", warmup_pos, 0, 1, open_low=True)

    def noise(key, batch):
        lam = jax.random.beta(key, beta, beta, (len(batch.views[0]),))
        return jnp.maximum(lam, 1 - lam)

    def loss(params, ema_params, apply, batch, noise, state, progress):
        (images,) = batch.views
        x_logits, batch_stats = apply(params, batch.labeled)

        teacher_logits, _ = apply(ema_params, images)
        guess = jax.lax.stop_gradient(jax.nn.softmax(teacher_logits))
        reverse = jnp.arange(len(images))[::-1]
        targets = losses.mixup(guess, noise, reverse)
        logits, _ = apply(params, losses.mixed(images, noise, reverse))

        labels = jax.nn.one_hot(batch.labels, x_logits.shape[-1])
        xe = jnp.mean(losses.cross_entropy(batch.adjusted(x_logits), labels))
        mt = jnp.mean(losses.squared_error(logits, targets))
        weight = consistency_weight * jnp.clip(progress.fraction / warmup_pos, 0, 1)
        logs = {"loss/xe": xe, "loss/mt": mt, "consistency_weight": weight}
        return xe + weight * mt, Aux(batch_stats, state, logs, guess)

    return Method(
        views=("weak",), init=no_state, noise=noise, loss=loss, joint=True, adjustable=True
    )
