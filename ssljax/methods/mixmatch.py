"""MixMatch (Berthelot et al., 2019), as `mixmatch.py` of google-research/mixmatch computes it.

The ablations come from its `ablation/ab_mixmatch.py`.
"""

import jax
import jax.numpy as jnp

from ssljax import losses
from ssljax.checks import check_choice, check_non_negative, check_positive, check_range
from ssljax.methods.method import Aux, Method, no_state

# Before the dot: what labelled images (x) are mixed with; after it, the same for unlabelled (y).
_MIXMODES = ("xxy.yxy", "xx.yy", "xx.yxy", "xx.yx", "xx.", ".yy", "xxy.", ".yxy", ".")


def mixmatch(
    *,
    beta: float = 0.75,
    w_match: float = 75.0,
    temperature: float = 0.5,
    ramp_images: int = 1 << 20,
    nu: int = 2,
    mixmode: str = "xxy.yxy",
    use_ema_guess: bool = False,
) -> Method:
    """Sharpened average guesses, MixUp of everything with everything, and a squared error.

    The labelled and the unlabelled batch have the same size (`uratio=1`).

    Args:
      beta: parameter of the Beta(β, β) distribution of the mixing weight λ, above 0. (The paper
        has 0.75; the published script defaults to 0.5.)
      w_match: weight of the squared error at the end of its ramp (75 for CIFAR-10 in the paper;
        100 in the published script).
      temperature: temperature of the sharpening (T), above 0.
      ramp_images: number of labelled images over which the weight rises linearly from 0. (The
        published ablations have 2^17.)
      nu: number of weak views of each unlabelled image (K).
      mixmode: an ablation. `xx.yy` mixes labelled with labelled and unlabelled with unlabelled
        images; `xxy.` mixes labelled images with both, and does not mix unlabelled ones.
      use_ema_guess: an ablation: whether the EMA model makes the guesses.
    """
    check_positive(beta=beta, temperature=temperature, ramp_images=ramp_images)
    check_non_negative(w_match=w_match)
    check_range("nu", nu, 1, 100)
    check_choice("mixmode", mixmode, _MIXMODES)

    def noise(key, batch):
        return _draw_mixup(key, mixmode, len(batch.labeled), nu, beta)

    def loss(params, ema_params, apply, batch, noise, state, progress):
        n, k = len(batch.labeled), len(batch.views)
        if len(batch.views[0]) != n:
            raise ValueError(
                f"mixmatch needs equally many labelled and unlabelled images; got {n} "
                f"and {len(batch.views[0])} (allowed: uratio=1)"
            )

        # Each view is normalised separately, and its statistics are dropped.
        guesser = ema_params if use_ema_guess else params
        guess = jnp.mean(
            jnp.stack([jax.nn.softmax(apply(guesser, view)[0]) for view in batch.views]), axis=0
        )
        guess = jax.lax.stop_gradient(losses.sharpen(guess, temperature))
        targets = jnp.concatenate([jax.nn.one_hot(batch.labels, guess.shape[-1])] + [guess] * k)
        images = losses.mixed(jnp.concatenate([batch.labeled, *batch.views]), **noise)
        targets = losses.mixup(targets, **noise)

        # Labelled images are in every sub-batch of B. Only the first sub-batch, which holds a share
        # of every source, moves the running statistics.
        logits, batch_stats = losses.apply_interleaved(apply, params, images, 1 + k)
        xe = jnp.mean(losses.cross_entropy(batch.adjusted(logits[:n]), targets[:n]))
        l2u = jnp.mean(losses.squared_error(logits[n:], targets[n:]))
        weight = w_match * jnp.clip(progress.images / float(ramp_images), 0, 1)
        logs = {"loss/xe": xe, "loss/l2u": l2u, "w_match": weight}
        return xe + weight * l2u, Aux(batch_stats[0], state, logs, guess)

    return Method(
        views=("weak",) * nu, init=no_state, noise=noise, loss=loss, joint=True, adjustable=True
    )


def _draw_mixup(key, mixmode, n, nu, beta):
    """`losses.draw_mixup` for n labelled images and nu views of n unlabelled ones."""
    total = n * (1 + nu)
    drawn = losses.draw_mixup(key, total, beta)
    everything = drawn["permutation"]
    keys = jax.random.split(jax.random.fold_in(key, 1), 2 + nu)
    x, y = mixmode.split(".")
    labeled = {
        "": jnp.arange(n),
        "xx": jax.random.permutation(keys[0], n),
        "xxy": everything[:n],
    }
    unlabeled = {
        "": jnp.arange(n, total),
        "yy": n + jax.random.permutation(keys[1], total - n),
        "yxy": everything[n:],
        "yx": jnp.concatenate([jax.random.permutation(k, n) for k in keys[2:]]),
    }
    mixed = jnp.array([bool(x)] * n + [bool(y)] * n * nu)
    return {
        "lam": jnp.where(mixed, drawn["lam"], 1),
        "permutation": jnp.concatenate([labeled[x], unlabeled[y]]),
    }
