"""IOMatch (Li et al., 2023), as `semilearn/algorithms/iomatch` of nukezil/IOMatch computes it.

https://arxiv.org/abs/2308.13168
"""

import jax
import jax.numpy as jnp

from ssljax import heads, losses
from ssljax.checks import check_non_negative, check_probability
from ssljax.methods.method import Aux, Method, no_noise

_STEPS = 128  # the alignment averages the guesses of this many steps
_EMBEDDING = 128


def iomatch(
    *,
    threshold: float = 0.95,
    open_threshold: float = 0.5,
    unlabeled_weight: float = 1.0,
    one_vs_all_weight: float = 1.0,
    open_weight: float = 1.0,
    dist_align: bool = True,
    warmup_steps: int = 1024,
) -> Method:
    """FixMatch for unlabelled images of which some belong to no class.

    A head predicts the probability that an image belongs to each class. An image is foreign if its
    mean probability of not belonging, weighted by its guess, is 0.5 or more. The guess is aligned
    to the uniform distribution. Foreign images do not count for FixMatch's loss. Another head has
    one more class, for foreign images. From strong views it learns each class's guess times the
    probability of belonging, and the remaining probability for the class of foreign images. The log
    `foreign` is the share of images that are judged to be foreign.

    Args:
      threshold: least probability (`>=`) of a guess that counts, 0..1.
      open_threshold: like `threshold`, for the guess with a class for foreign images.
      unlabeled_weight: weight of FixMatch's unlabelled loss (λu).
      one_vs_all_weight: weight of the loss of belonging (`mb_loss_ratio`).
      open_weight: weight of the loss of the head with one more class (`op_loss_ratio`).
      dist_align: whether guesses are aligned (False in the authors' CIFAR-10 recipes).
      warmup_steps: number of steps of the first epoch, which leaves out the loss of that head.
    """
    check_probability(threshold=threshold, open_threshold=open_threshold)
    check_non_negative(unlabeled_weight=unlabeled_weight, one_vs_all_weight=one_vs_all_weight)
    check_non_negative(open_weight=open_weight, warmup_steps=warmup_steps)
    head = _open_set_head()

    def init(sizes):
        return {"guesses": jnp.zeros((_STEPS, sizes.classes))} if dist_align else ()

    def loss(params, ema_params, apply, batch, noise, state, progress):
        del ema_params, noise
        n, m = len(batch.labeled), len(batch.views[0])
        images = jnp.concatenate([batch.labeled, *batch.views])
        logits, features, batch_stats = apply.with_features(params, images)
        belongs, open_logits = head(params, features)
        x_logits, weak_logits, strong_logits = jnp.split(logits, [n, n + m])
        classes, labels = logits.shape[-1], jax.nn.one_hot(batch.labels, logits.shape[-1])

        weak_logits, (outside, inside) = jax.lax.stop_gradient((weak_logits, belongs[:, n : n + m]))
        guess = jax.nn.softmax(weak_logits)
        if dist_align:
            guesses = losses.push(state["guesses"], jnp.mean(guess, axis=0)[None])
            uniform = jnp.full(classes, 1 / classes)
            guess = losses.align(guess, uniform, jnp.mean(guesses, axis=0))
            state = {"guesses": guesses}
        foreign = jnp.sum(guess * outside, axis=-1)
        open_guess = jnp.concatenate([guess * inside, foreign[:, None]], axis=-1)
        own = foreign < 0.5
        mask = (own & (jnp.max(guess, axis=-1) >= threshold)).astype(jnp.float32)
        open_mask = (jnp.max(open_guess, axis=-1) >= open_threshold).astype(jnp.float32)

        xe = jnp.mean(losses.cross_entropy(batch.adjusted(x_logits), labels))
        ova = _one_vs_all(belongs[:, :n], labels)
        xeu = jnp.mean(mask * losses.cross_entropy(strong_logits, guess))
        opened = jnp.mean(open_mask * losses.cross_entropy(open_logits[n + m :], open_guess))
        opened = jnp.where(progress.step >= warmup_steps, opened, 0.0)
        logs = {"loss/xe": xe, "loss/one_vs_all": ova, "loss/xeu": xeu, "loss/open": opened}
        logs["foreign"] = 1 - jnp.mean(own.astype(jnp.float32))
        total = xe + one_vs_all_weight * ova + unlabeled_weight * xeu + open_weight * opened
        return total, Aux(batch_stats, state, logs, guess, mask)

    return Method(
        ("weak", "strong"), init, no_noise, loss, joint=True, heads=(head,), adjustable=True
    )


def _open_set_head():
    """Makes the head, which maps features `[N, D]` to two outputs.

    The outputs are the probabilities of not belonging and of belonging to each class, `[2, N, C]`,
    and logits of the classes and of foreign images, `[N, C + 1]`.
    """
    projection = heads.mlp("projection", _EMBEDDING, normalized=False)
    one_vs_all = heads.dense("one_vs_all", per_class=2, bias=False)
    opened = heads.dense("open", 1, per_class=1)

    def init(key, features, classes):
        keys = jax.random.split(key, 3)
        return {
            "projection": projection.init(keys[0], features, classes),
            "one_vs_all": one_vs_all.init(keys[1], _EMBEDDING, classes),
            "open": opened.init(keys[2], _EMBEDDING, classes),
        }

    def apply(weights, features):
        projected = projection.apply(weights["projection"], features)
        logits = one_vs_all.apply(weights["one_vs_all"], projected)
        belongs = jax.nn.softmax(jnp.stack(jnp.split(logits, 2, axis=-1)), axis=0)
        return belongs, opened.apply(weights["open"], projected)

    return heads.Head("open_set", init, apply)


def _one_vs_all(belongs, labels):
    """The loss of belonging `[]`, for the true class and for the worst other class.

    Args:
      belongs: `[2, B, C]` probabilities of not belonging and of belonging.
      labels: `[B, C]` one-hot.
    """
    outside, inside = -jnp.log(belongs + 1e-8)
    return jnp.mean(jnp.sum(inside * labels, axis=-1)) + jnp.mean(
        jnp.max(outside * (1 - labels), axis=-1)
    )
