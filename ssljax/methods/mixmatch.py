"""MixMatch (Berthelot et al., 2019), as `mixmatch.py` of google-research/mixmatch computes it."""

import math

import jax
import jax.numpy as jnp

from ssljax import losses
from ssljax.methods.method import Aux, Method, no_state


def mixmatch(
    *,
    beta: float = 0.75,
    w_match: float = 75.0,
    temperature: float = 0.5,
    ramp_images: int = 1 << 20,
) -> Method:
    """Sharpened average guesses, MixUp of everything with everything, and a squared error.

    The labelled and the unlabelled batch have the same size (`uratio=1`), and each unlabelled
    image has K = 2 weak views.

    Args:
      beta: parameter of the Beta(β, β) distribution of the mixing weight λ, above 0. (The paper
        has 0.75; the published script defaults to 0.5.)
      w_match: weight of the squared error at the end of its ramp (75 for CIFAR-10 in the paper;
        100 in the published script).
      temperature: of the sharpening (T), above 0.
      ramp_images: labelled images over which the weight rises linearly from 0.
    """
    for name, value in dict(beta=beta, temperature=temperature, ramp_images=ramp_images).items():
        if not 0 < value < math.inf:
            raise ValueError(f"{name} is {value}; allowed: above 0")
    if not 0 <= w_match < math.inf:
        raise ValueError(f"w_match is {w_match}; allowed: 0 or more")
    views = ("weak", "weak")

    def noise(key, batch):
        lam_key, permutation_key = jax.random.split(key)
        n = len(batch.labeled) + sum(len(view) for view in batch.views)
        lam = jax.random.beta(lam_key, beta, beta, (n,))
        return {
            "lam": jnp.maximum(lam, 1 - lam),
            "permutation": jax.random.permutation(permutation_key, n),
        }

    def loss(params, ema_params, apply, batch, noise, state, progress):
        del ema_params
        n, k = len(batch.labeled), len(batch.views)
        if len(batch.views[0]) != n:
            raise ValueError(
                f"mixmatch mixes equally many labelled and unlabelled images; it was given {n} "
                f"and {len(batch.views[0])} (allowed: uratio=1)"
            )

        # Each view is normalised on its own, and its statistics are dropped.
        guess = jnp.mean(
            jnp.stack([jax.nn.softmax(apply(params, view)[0]) for view in batch.views]), axis=0
        )
        guess = jax.lax.stop_gradient(losses.sharpen(guess, temperature))
        targets = jnp.concatenate([jax.nn.one_hot(batch.labels, guess.shape[-1])] + [guess] * k)
        images = jnp.concatenate([batch.labeled, *batch.views])
        images = losses.mixup(images, noise["lam"], noise["permutation"])
        targets = losses.mixup(targets, noise["lam"], noise["permutation"])

        # Labelled images are in every sub-batch of B. The first one, which holds a share of every
        # source, alone moves the running statistics.
        sub_batches = losses.interleave(jnp.split(images, 1 + k))
        outputs = [apply(params, sub_batch) for sub_batch in sub_batches]
        batch_stats = outputs[0][1]
        logits = jnp.concatenate(losses.interleave([logits for logits, _ in outputs]))

        xe = jnp.mean(losses.cross_entropy(logits[:n], targets[:n]))
        l2u = jnp.mean(losses.squared_error(logits[n:], targets[n:]))
        weight = w_match * jnp.clip(progress.images / ramp_images, 0, 1)
        logs = {"loss/xe": xe, "loss/l2u": l2u, "w_match": weight}
        return xe + weight * l2u, Aux(batch_stats, state, logs, guess)

    return Method(views=views, init=no_state, noise=noise, loss=loss, joint=True)
