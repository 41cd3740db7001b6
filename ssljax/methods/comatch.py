"""CoMatch (Li et al., 2021), as `Train_CoMatch.py` of salesforce/CoMatch computes it on CIFAR-10.

https://arxiv.org/abs/2011.11183; the variant is `semilearn/algorithms/comatch` of USB.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

from ssljax import heads, losses
from ssljax.checks import (
    check_choice,
    check_non_negative,
    check_positive,
    check_probability,
)
from ssljax.methods.method import Aux, Method, no_noise


def comatch(
    *,
    threshold: float = 0.95,
    unlabeled_weight: float = 1.0,
    contrast_weight: float = 1.0,
    contrast_threshold: float = 0.8,
    temperature: float = 0.2,
    smoothing: float = 0.9,
    queue_steps: int = 5,
    smoothing_from: int = 6,
    alignment_steps: int = 32,
    embedding: int = 64,
    projectors: int = 1,
    second_view: str = "simclr",
    variant: str = "authors",
) -> Method:
    """Guesses are smoothed over similar images, and embeddings learn which guesses are similar.

    A queue holds the embeddings of the last steps' weak views and labelled images, with their
    guesses and labels. Guesses are divided by their mean over the last steps, and mixed with the
    queue's guesses, weighted by the similarity of embeddings. One strong view learns the guesses.
    The similarities of its embeddings to those of another strong view learn a graph of guesses. Its
    edges are the products of two images' guesses where these are large enough, and 1 from an image
    to itself. Weak views have no gradient.

    Args:
      threshold: least probability (`>=`) of a guess that counts, 0..1.
      unlabeled_weight: weight of the unlabelled loss (λu).
      contrast_weight: weight of the graph's loss (λc).
      contrast_threshold: least product (`>=`) of two images' guesses that is an edge, 0..1.
      temperature: divisor of the similarities, above 0.
      smoothing: share of the original guess in the mixed guess, 0..1 (α).
      queue_steps: number of steps whose images are in the queue (USB's vision transformers: 32).
      smoothing_from: first step, counted from 0, in which guesses are mixed (USB: 1024).
      alignment_steps: number of steps whose mean guesses are averaged.
      embedding: width of the embedding.
      projectors: number of heads whose mean is the embedding (USB's recipes: 3, named EPASS).
      second_view: augmentation of the second strong view, `simclr` or `strong` (USB's).
      variant: `authors`, whose head has a leaky ReLU, or `usb`, whose head has a ReLU.
    """
    check_probability(threshold=threshold, contrast_threshold=contrast_threshold)
    check_probability(smoothing=smoothing)
    check_non_negative(unlabeled_weight=unlabeled_weight, contrast_weight=contrast_weight)
    check_positive(temperature=temperature)
    check_positive(queue_steps=queue_steps, alignment_steps=alignment_steps)
    check_positive(embedding=embedding, projectors=projectors)
    check_non_negative(smoothing_from=smoothing_from)
    check_choice("second_view", second_view, ("simclr", "strong"))
    check_choice("variant", variant, _ACTIVATIONS)
    projection = heads.mlp("projection", embedding, _ACTIVATIONS[variant], count=projectors)

    def init(sizes):
        rows = queue_steps * sum(sizes.batch)
        return {
            "embeddings": jnp.zeros((rows, embedding)),
            "probabilities": jnp.zeros((rows, sizes.classes)),
            "guesses": jnp.zeros((alignment_steps, sizes.classes)),
        }

    def loss(params, ema_params, apply, batch, noise, state, progress):
        del ema_params, noise
        n, m = len(batch.labeled), len(batch.views[0])
        images = jnp.concatenate([batch.labeled, *batch.views])
        logits, features, batch_stats = apply.with_features(params, images)
        parts = [n, n + m, n + 2 * m]
        x_logits, weak_logits, strong_logits, _ = jnp.split(logits, parts)
        x, weak, strong, second = jnp.split(projection(params, features), parts)
        x, weak, weak_logits = jax.lax.stop_gradient((x, weak, weak_logits))
        labels = jax.nn.one_hot(batch.labels, logits.shape[-1])

        guess, guesses = losses.balance(jax.nn.softmax(weak_logits), state["guesses"])
        similar = jax.nn.softmax(weak @ state["embeddings"].T / temperature)
        smoothed = smoothing * guess + (1 - smoothing) * (similar @ state["probabilities"])
        target = jnp.where(progress.step >= smoothing_from, smoothed, guess)
        mask = (jnp.max(target, axis=-1) >= threshold).astype(jnp.float32)

        xe = jnp.mean(losses.cross_entropy(batch.adjusted(x_logits), labels))
        xeu = jnp.mean(mask * losses.cross_entropy(strong_logits, target))
        contrast = _contrast(strong, second, target, temperature, contrast_threshold)
        logs = {"loss/xe": xe, "loss/xeu": xeu, "loss/contrast": contrast}
        entering = {"embeddings": [weak, x], "probabilities": [guess, labels]}
        after = {k: losses.push(state[k], jnp.concatenate(x)) for k, x in entering.items()}
        after["guesses"] = guesses
        total = xe + unlabeled_weight * xeu + contrast_weight * contrast
        return total, Aux(batch_stats, after, logs, target, mask)

    views = ("weak", "strong", second_view)
    return Method(views, init, no_noise, loss, joint=True, heads=(projection,), adjustable=True)


_ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "authors": partial(jax.nn.leaky_relu, negative_slope=0.1),
    "usb": jax.nn.relu,
}


def _contrast(strong, second, target, temperature, threshold):
    """Cross-entropy of the embeddings' similarities with the graph of guesses, `[]`.

    Args:
      strong, second: `[M, D]` embeddings of the two strong views.
      target: `[M, C]` guesses.
      temperature, threshold: `temperature` and `contrast_threshold` of `comatch`.
    """
    graph = jnp.where(jnp.eye(len(target), dtype=bool), 1.0, target @ target.T)
    graph = jnp.where(graph >= threshold, graph, 0.0)
    graph /= jnp.sum(graph, axis=-1, keepdims=True)
    similar = jax.nn.softmax(strong @ second.T / temperature)
    return -jnp.mean(jnp.sum(graph * jnp.log(similar + 1e-7), axis=-1))
