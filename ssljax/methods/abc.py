"""ABC, an auxiliary balanced classifier (Lee et al., 2021), as in its authors' `ABCfix.py`.

https://arxiv.org/abs/2110.10368; LeeHyuck/ABC.
"""

import jax
import jax.numpy as jnp

from ssljax import heads, losses
from ssljax.checks import check_non_negative, check_probability, check_range
from ssljax.methods.method import Aux, Method


def abc(
    *,
    threshold: float = 0.95,
    unlabeled_weight: float = 1.0,
    abc_weight: float = 1.0,
    epochs: int = 500,
) -> Method:
    """FixMatch with a second classifier, which learns each class equally often.

    The model's last layer is the balanced classifier, which is evaluated and predicts. A further
    layer on the same features is FixMatch's. A labelled image counts for the balanced classifier
    with the probability N_min / N_c of its class. An unlabelled image counts with a probability
    that falls, epoch by epoch over the run, from 1 to that of its guessed class. Both strong views
    learn each guess: FixMatch's classifier learns its hard guess, and the balanced classifier its
    soft guess. Weak, labelled and the two strong views have four separate passes. The running
    statistics move towards the mean of the four; the published code moves them once per pass, so
    that a momentum of 0.996 here corresponds to the published 0.999.

    Args:
      threshold: least probability (`>=`) of a guess that counts, 0..1.
      unlabeled_weight: weight of FixMatch's unlabelled loss (λu).
      abc_weight: weight of the balanced classifier's losses.
      epochs: number of epochs of the run, over which the probability falls; at least 1.
    """
    check_probability(threshold=threshold)
    check_non_negative(unlabeled_weight=unlabeled_weight, abc_weight=abc_weight)
    check_range("epochs", epochs, 1)
    backbone = heads.dense("fixmatch", per_class=1)

    def init(sizes):
        counts = jnp.maximum(jnp.asarray(sizes.class_counts, jnp.float32), 1)
        return {"rate": jnp.min(counts) / counts}  # N_min / N_c

    def noise(key, batch):
        return [
            jax.random.uniform(k, (size,))
            for k, size in zip(
                jax.random.split(key), (len(batch.labeled), len(batch.views[0])), strict=True
            )
        ]

    def loss(params, ema_params, apply, batch, noise, state, progress):
        del ema_params
        weak, *strong = batch.views
        passes = [apply.with_features(params, images) for images in (weak, batch.labeled, *strong)]
        balanced = [logits for logits, _, _ in passes]
        logits = [backbone(params, features) for _, features, _ in passes]
        batch_stats = jax.tree.map(lambda *x: sum(x) / len(x), *(stats for _, _, stats in passes))
        classes = logits[0].shape[-1]
        labels = jax.nn.one_hot(batch.labels, classes)

        guess, own = jax.nn.softmax(jax.lax.stop_gradient(jnp.stack([logits[0], balanced[0]])))
        mask, own_mask = (
            (jnp.max(x, axis=-1) >= threshold).astype(jnp.float32) for x in (guess, own)
        )
        pseudo_labels = jax.nn.one_hot(jnp.argmax(guess, axis=-1), classes)
        xe = jnp.mean(losses.cross_entropy(batch.adjusted(logits[1]), labels))
        xeu = jnp.mean(mask[None] * _errors(logits[2:], pseudo_labels))

        passed = jnp.floor(progress.fraction * epochs) / epochs
        own_rate = 1 - passed * (1 - state["rate"][jnp.argmax(own, axis=-1)])
        counts = (noise[0] < state["rate"][batch.labels]).astype(jnp.float32)
        own_counts = own_mask * (noise[1] < own_rate)
        labeled = jnp.mean(counts * losses.cross_entropy(balanced[1], labels))
        unlabeled = jnp.sum(jnp.mean(own_counts[None] * _errors(balanced[2:], own), axis=-1))
        logs = {"loss/xe": xe, "loss/xeu": xeu, "loss/abc": labeled, "loss/abcu": unlabeled}
        total = xe + unlabeled_weight * xeu + abc_weight * (labeled + unlabeled)
        return total, Aux(batch_stats, state, logs, own, own_mask)

    return Method(
        views=("weak", "strong", "strong"),
        init=init,
        noise=noise,
        loss=loss,
        joint=True,
        heads=(backbone,),
        adjustable=True,
    )


def _errors(strong_logits, targets):
    """Cross-entropies `[views, M]` of the strong views' logits with the same targets."""
    return losses.cross_entropy(jnp.stack(strong_logits), targets[None])
