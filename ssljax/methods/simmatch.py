"""SimMatch (Zheng et al., 2022), as `models/simmatch.py` of its authors computes it.

https://arxiv.org/abs/2203.06915; mingkai-zheng/simmatch, and `algorithms/simmatch` of USB.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from ssljax import heads, losses
from ssljax.checks import check_choice, check_non_negative, check_positive, check_probability
from ssljax.methods.method import Aux, Method, no_noise


def simmatch(
    *,
    threshold: float = 0.7,
    unlabeled_weight: float = 10.0,
    instance_weight: float = 5.0,
    temperature: float = 0.1,
    smoothing: float = 0.9,
    warmup_steps: int = 1024,
    alignment_steps: int = 256,
    embedding: int = 128,
    projectors: int = 1,
    bank_momentum: float = 0.0,
    teacher: str = "ema",
) -> Method:
    """Strong views learn a teacher's classes, and its similarities to the labelled images.

    A bank holds an embedding of each labelled image. The similarities of a weak view to these,
    multiplied by the guess for the class of each, are the targets of the strong view's
    similarities. Their sums per class are mixed into the guess. Guesses are divided by their mean
    over the last steps. The first epoch only has the loss of guesses, which are not mixed yet. For
    a labelled image that is twice in a batch, the last embedding is kept.

    The defaults are the values of the authors' ImageNet runs. USB's recipes have a threshold of
    0.95, weights of 1, temperatures of 0.1 to 0.2, 32 alignment steps, three projectors, a bank
    momentum of 0.7 and the teacher `self`.

    Args:
      threshold: least probability (`>=`) of a guess that counts, 0..1.
      unlabeled_weight: weight of the unlabelled loss (λu).
      instance_weight: weight of the loss of similarities (λin).
      temperature: divisor of the similarities, above 0.
      smoothing: share of the original guess in the mixed guess, 0..1.
      warmup_steps: number of steps of the first epoch.
      alignment_steps: number of steps whose mean guesses are averaged.
      embedding: width of the embedding.
      projectors: number of heads whose mean is the embedding.
      bank_momentum: share of its old embedding that an image in the bank keeps, 0..1. The mixed
        embedding is scaled to length 1 (USB scales over the images of the batch).
      teacher: the model that makes the guesses and the labelled images' embeddings: `ema`, the
        averaged weights with BatchNorm over labelled and weak images; `eman`, the same in
        evaluation mode; or `self`, the model in one pass over labelled, weak and strong images.
    """
    check_probability(threshold=threshold, smoothing=smoothing, bank_momentum=bank_momentum)
    check_non_negative(unlabeled_weight=unlabeled_weight, instance_weight=instance_weight)
    check_positive(temperature=temperature)
    check_positive(alignment_steps=alignment_steps, embedding=embedding, projectors=projectors)
    check_non_negative(warmup_steps=warmup_steps)
    check_choice("teacher", teacher, _TEACHERS)
    projection = heads.mlp("projection", embedding, count=projectors)

    def init(sizes):
        bank = jax.random.normal(jax.random.PRNGKey(0), (sizes.labeled, embedding))
        return {
            "bank": heads.normalize(bank),
            "labels": jnp.zeros(sizes.labeled, jnp.int32),
            "guesses": jnp.zeros((alignment_steps, sizes.classes)),
        }

    def loss(params, ema_params, apply, batch, noise, state, progress):
        del noise
        passes = _TEACHERS[teacher]
        student, taught, batch_stats = passes(apply, params, ema_params, batch, projection)
        (x_logits, strong_logits), (_, strong) = student
        (_, weak_logits), (x_embedding, weak) = jax.lax.stop_gradient(taught)
        classes, bank = x_logits.shape[-1], state["bank"]
        started = progress.step >= warmup_steps

        guess, guesses = losses.balance(jax.nn.softmax(weak_logits), state["guesses"])
        similar = jax.nn.softmax(weak @ bank.T / temperature)
        by_class = similar @ jax.nn.one_hot(state["labels"], classes)
        smoothed = smoothing * guess + (1 - smoothing) * by_class
        targets = similar * guess[:, state["labels"]]
        targets /= jnp.sum(targets, axis=-1, keepdims=True)
        guess = jnp.where(started, smoothed, guess)
        mask = (jnp.max(guess, axis=-1) >= threshold).astype(jnp.float32)

        labels = jax.nn.one_hot(batch.labels, classes)
        xe = jnp.mean(losses.cross_entropy(batch.adjusted(x_logits), labels))
        xeu = jnp.mean(mask * losses.cross_entropy(strong_logits, guess))
        instance = jnp.mean(losses.cross_entropy(strong @ bank.T / temperature, targets))
        instance = jnp.where(started, instance, 0.0)
        logs = {"loss/xe": xe, "loss/xeu": xeu, "loss/instance": instance}

        after = _remember(state, batch, x_embedding, bank_momentum) | {"guesses": guesses}
        total = xe + unlabeled_weight * xeu + instance_weight * instance
        return total, Aux(batch_stats, after, logs, guess, mask)

    views = ("weak", "strong")
    return Method(views, init, no_noise, loss, joint=True, heads=(projection,), adjustable=True)


def _remember(state, batch, embedding, momentum):
    """The bank and its labels after a step.

    Args:
      embedding: `[B, D]` embeddings of the batch's labelled images.
      momentum: `bank_momentum` of `simmatch`.
    """
    old = state["bank"][batch.labeled_index]
    moved = heads.normalize(momentum * old + (1 - momentum) * embedding) if momentum else embedding
    return {
        "bank": losses.write(state["bank"], batch.labeled_index, moved),
        "labels": losses.write(state["labels"], batch.labeled_index, batch.labels),
    }


# Each teacher is (apply, params, ema_params, batch, projection) -> student, taught, statistics.
# `student` has the logits and embeddings of labelled images and strong views, and `taught` those of
# labelled images and weak views.


def _by_average(apply, params, ema_params, batch, projection, *, evaluate=False):
    weak, strong = batch.views
    student = apply.with_features(params, jnp.concatenate([batch.labeled, strong]))
    images = jnp.concatenate([batch.labeled, weak])
    passes = apply.evaluate if evaluate else apply.with_features
    taught = passes(ema_params, images)
    n = [len(batch.labeled)]

    def split(weights, logits, features, *_):
        return jnp.split(logits, n), jnp.split(projection(weights, features), n)

    return split(params, *student), split(ema_params, *taught), student[2]


def _by_itself(apply, params, ema_params, batch, projection):
    del ema_params
    n, m = len(batch.labeled), len(batch.views[0])
    images = jnp.concatenate([batch.labeled, *batch.views])
    logits, features, batch_stats = apply.with_features(params, images)
    outputs = [jnp.split(x, [n, n + m]) for x in (logits, projection(params, features))]
    student, taught = ([(x[0], x[i]) for x in outputs] for i in (2, 1))
    return student, taught, batch_stats


_TEACHERS: dict[str, Callable[..., Any]] = {
    "ema": _by_average,
    "eman": partial(_by_average, evaluate=True),
    "self": _by_itself,
}
