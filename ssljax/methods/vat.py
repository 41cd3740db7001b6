"""Virtual adversarial training (Miyato et al., 2017), as `vat.py` of google-research/mixmatch.

https://arxiv.org/abs/1704.03976; the direction comes from its `third_party/vat_utils.py`.
"""

import jax
import jax.numpy as jnp

from ssljax import losses
from ssljax.checks import check_non_negative, check_positive, check_range
from ssljax.methods.method import Aux, Method, no_state


def vat(
    *,
    vat_weight: float = 0.3,
    vat_eps: float = 6.0,
    entmin_weight: float = 0.06,
    warmup_pos: float = 0.4,
    xi: float = 1e-6,
) -> Method:
    """Predictions stay the same when an image is changed in the most harmful direction.

    The direction is one step of the power iteration: the gradient of KL(clean || changed) at a
    random change of length ξ. The loss is the reverse divergence, KL(changed || clean), as in the
    published code (the paper has the first in both places), without gradient into the clean
    prediction. The entropy of the clean prediction is a separate loss. Each pass is normalised
    separately, and only that of the labelled images moves the running statistics. The published
    flag `smoothing` has no effect, and is left out.

    Args:
      vat_weight: weight of the divergence at the end of its ramp (the published flag `vat`).
      vat_eps: Euclidean length of an image's change, in pixel values of -1..1 (ε).
      entmin_weight: weight of the entropy, from the start.
      warmup_pos: share of the run over which vat_weight rises linearly from 0, above 0 to 1.
      xi: length of the random change (ξ), above 0. With the published 1e-6, float32's rounding
        decides most of the direction; with 1e-4 or 1e-3, the network does.
    """
    check_positive(vat_eps=vat_eps, xi=xi)
    check_non_negative(vat_weight=vat_weight, entmin_weight=entmin_weight)
    check_range("warmup_pos", warmup_pos, 0, 1, open_low=True)

    def noise(key, batch):
        return jax.random.normal(key, batch.views[0].shape)

    def loss(params, ema_params, apply, batch, noise, state, progress):
        del ema_params
        (images,) = batch.views
        x_logits, batch_stats = apply(params, batch.labeled)
        clean_logits, _ = apply(params, images)
        constant_params, teacher_logits = jax.lax.stop_gradient((params, clean_logits))

        def divergence(change):
            changed_logits, _ = apply(constant_params, images + change)
            return jnp.mean(losses.kl_divergence(teacher_logits, changed_logits))

        change = vat_eps * _normalize(jax.grad(divergence)(xi * _normalize(noise)))
        changed_logits, _ = apply(params, images + change)

        labels = jax.nn.one_hot(batch.labels, x_logits.shape[-1])
        xe = jnp.mean(losses.cross_entropy(batch.adjusted(x_logits), labels))
        divergences = jnp.mean(losses.kl_divergence(changed_logits, teacher_logits))
        entmin = jnp.mean(losses.entropy(clean_logits))
        weight = vat_weight * jnp.clip(progress.fraction / warmup_pos, 0, 1)
        logs = {"loss/xe": xe, "loss/vat": divergences, "loss/entmin": entmin, "vat_weight": weight}
        total = xe + weight * divergences + entmin_weight * entmin
        return total, Aux(batch_stats, state, logs, jax.nn.softmax(teacher_logits))

    return Method(views=("weak",), init=no_state, noise=noise, loss=loss, adjustable=True)


def _normalize(changes):
    """Scales each image's change `[N, H, W, C]` to length 1, after a division by its maximum."""
    axes = (1, 2, 3)
    changes /= 1e-12 + jnp.max(jnp.abs(changes), axes, keepdims=True)
    return changes / jnp.sqrt(1e-6 + jnp.sum(jnp.square(changes), axes, keepdims=True))
