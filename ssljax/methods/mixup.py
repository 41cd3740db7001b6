"""MixUp (Zhang et al., 2018), as `mixup.py` and `fs_mixup.py` of google-research/mixmatch.

https://arxiv.org/abs/1710.09412
"""

import jax
import jax.numpy as jnp

from ssljax import losses
from ssljax.checks import check_positive
from ssljax.methods.method import Aux, Method, no_state


def mixup(*, beta: float = 0.75, use_unlabeled: bool = False) -> Method:
    """Learns from pairs of images whose pixels and labels are mixed.

    The i-th image of the batch is mixed with the i-th from the end, with λ ~ Beta(β, β); the larger
    weight is that of the i-th image. With use_unlabeled, the unlabelled images are mixed with each
    other, and so are the predictions for them, without gradient; a cross-entropy of the same weight
    is added. Only the pass over the mixed labelled images moves the running statistics.

    Args:
      beta: parameter of the Beta(β, β) distribution of the mixing weight λ, above 0. (Published:
        0.75 for CIFAR-10, 0.25 for SVHN; fully supervised 0.5.)
      use_unlabeled: False is fully supervised MixUp (`fully_supervised/fs_mixup.py`), True the
        baseline of the MixMatch paper's tables (`mixup.py`).
    """
    check_positive(beta=beta)

    def noise(key, batch):
        sizes = [len(batch.labeled), *(len(view) for view in batch.views)]
        keys = jax.random.split(key, len(sizes))
        return [_draw(k, n, beta) for k, n in zip(keys, sizes, strict=True)]

    def loss(params, ema_params, apply, batch, noise, state, progress):
        del ema_params, progress
        x_logits, batch_stats = apply(params, losses.mixed(batch.labeled, **noise[0]))
        labels = jax.nn.one_hot(batch.labels, x_logits.shape[-1])
        targets = losses.mixup(labels, **noise[0])
        xe = jnp.mean(losses.cross_entropy(batch.adjusted(x_logits), targets))
        if not use_unlabeled:
            return xe, Aux(batch_stats, state, {"loss/xe": xe})

        (images,) = batch.views
        guess = jax.lax.stop_gradient(jax.nn.softmax(apply(params, images)[0]))
        logits, _ = apply(params, losses.mixed(images, **noise[1]))
        xeu = jnp.mean(losses.cross_entropy(logits, losses.mixup(guess, **noise[1])))
        return xe + xeu, Aux(batch_stats, state, {"loss/xe": xe, "loss/xeu": xeu}, guess)

    views = ("weak",) if use_unlabeled else ()
    return Method(views=views, init=no_state, noise=noise, loss=loss, joint=True, adjustable=True)


def _draw(key, n, beta):
    """`losses.draw_mixup` with the reversed batch as partners."""
    return losses.draw_mixup(key, n, beta) | {"permutation": jnp.arange(n)[::-1]}
