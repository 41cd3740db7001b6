"""ReMixMatch (Berthelot et al., 2020), as `remixmatch_no_cta.py` of google-research/remixmatch.

https://arxiv.org/abs/1911.09785; `cta/cta_remixmatch.py` has the same loss.
"""

import jax
import jax.numpy as jnp

from ssljax import heads, losses
from ssljax.checks import check_choice, check_non_negative, check_positive, check_range
from ssljax.methods.method import Aux, Method

_STEPS = 128  # the alignment averages the guesses of this many steps
_ROTATION = heads.dense("rotation", 4)
# The softmax of each view, with the anchor's first -> the guess for each view.
_REDUX = {
    "1st": lambda views: views[:1] * len(views),
    "mean": lambda views: [sum(views) / len(views)] * len(views),
    "swap": lambda views: views[1:] + views[:1],
}


def remixmatch(
    *,
    strong_views: int = 8,
    beta: float = 0.75,
    w_match: float = 1.5,
    w_kl: float = 0.5,
    w_rot: float = 0.5,
    temperature: float = 0.5,
    ramp_images: int = 1 << 20,
    redux: str = "1st",
    use_dm: bool = True,
    use_xe: bool = True,
    anchor: str = "weak",
) -> Method:
    """MixMatch whose guess comes from an anchor view, is aligned and labels many strong views.

    Alignment multiplies a guess by the ratio of the labels' distribution (a moving average that
    begins uniform) to that of the guesses of the last 128 steps. Guesses and labels are mixed as in
    MixMatch. The first strong view also learns its guess unmixed. Its images are rotated by 0, 180,
    90 and 270 degrees, a quarter of the batch each, and a head learns to predict the angle.
    Labelled images have strong views. Only the last sub-batch moves the running statistics
    (MixMatch: the first).

    Args:
      strong_views: number of strong views of each unlabelled image, besides its anchor (K).
      beta: parameter of the Beta(β, β) distribution of the mixing weight λ, above 0.
      w_match: weight of the mixed unlabelled images at the end of its ramp.
      w_kl: weight of the unmixed first strong view, with the same ramp.
      w_rot: weight of the rotation loss, without ramp; 0: no head.
      temperature: temperature of the sharpening (T), above 0.
      ramp_images: number of labelled images over which the ramp rises linearly from 0.
      redux: which prediction is the guess: 1st (the anchor's), mean (of all views) or swap (of the
        next view; the default of `remixmatch_no_cta.py`).
      use_dm: whether guesses are aligned.
      use_xe: whether the loss of mixed unlabelled images is a cross-entropy, not a squared error.
      anchor: augmentation of the anchor: weak, none (STL-10) or strong (an ablation).
    """
    check_positive(beta=beta, temperature=temperature, ramp_images=ramp_images)
    check_non_negative(w_match=w_match, w_kl=w_kl, w_rot=w_rot)
    check_choice("redux", redux, _REDUX)
    check_choice("anchor", anchor, ("weak", "none", "strong"))
    check_range("strong_views", strong_views, 1, 100)

    def init(sizes):
        uniform = jnp.full(sizes.classes, 1 / sizes.classes)
        return {"labels": uniform, "guesses": jnp.tile(uniform, (_STEPS, 1))}

    def noise(key, batch):
        n = len(batch.labeled) + sum(len(view) for view in batch.views)
        return losses.draw_mixup(key, n, beta)

    def loss(params, ema_params, apply, batch, noise, state, progress):
        del ema_params
        n, views = len(batch.labeled), batch.views
        _check_sizes(n, len(views[0]))

        # Each view is normalised separately.
        logits = [apply(params, view)[0] for view in (views[:2] if redux == "1st" else views)]
        predicted = [jax.nn.softmax(jax.lax.stop_gradient(x)) for x in logits]
        predicted = _REDUX[redux](predicted + predicted[:1] * (len(views) - len(predicted)))
        aligned = _align(predicted, state) if use_dm else predicted
        guesses = [losses.sharpen(p, temperature) for p in aligned]
        kl = jnp.mean(losses.cross_entropy(logits[1], guesses[0]))

        labels = jax.nn.one_hot(batch.labels, guesses[0].shape[-1])
        images = losses.mixed(jnp.concatenate([batch.labeled, *views]), **noise)
        targets = losses.mixup(jnp.concatenate([labels, *guesses]), **noise)
        mixed, batch_stats = losses.apply_interleaved(apply, params, images, 1 + len(views))
        xe = jnp.mean(losses.cross_entropy(batch.adjusted(mixed[:n]), targets[:n]))
        unlabeled_error = losses.cross_entropy if use_xe else losses.squared_error
        match = jnp.mean(unlabeled_error(mixed[n:], targets[n:]))

        ramp = jnp.clip(progress.images / float(ramp_images), 0, 1)
        total = xe + ramp * (w_kl * kl + w_match * match)
        logs = {"loss/xe": xe, "loss/kl": kl, "loss/match": match, "ramp": ramp}
        if w_rot:
            logs["loss/rot"] = _rotation_loss(apply, params, views[1])
            total += w_rot * logs["loss/rot"]
        after = _remember(state, labels, predicted)
        return total, Aux(batch_stats[-1], after, logs, guesses[0])

    return Method(
        views=(anchor,) + ("strong",) * strong_views,
        init=init,
        noise=noise,
        loss=loss,
        joint=True,
        labeled_view="strong",
        heads=(_ROTATION,) if w_rot else (),
        adjustable=True,
    )


def _check_sizes(labeled, unlabeled):
    if labeled != unlabeled or labeled % 4:
        raise ValueError(
            f"remixmatch needs equally many labelled and unlabelled images, in four equal parts; "
            f"got {labeled} and {unlabeled} (allowed: uratio=1, and a batch_size that is a "
            "multiple of 4)"
        )


def _align(predicted, state):
    """Predictions times the ratio of the labels' distribution to that of the remembered guesses."""
    ratio = (1e-6 + state["labels"]) / (1e-6 + jnp.mean(state["guesses"], axis=0))
    return [p * ratio[None] for p in predicted]


def _remember(state, labels, predicted):
    """The state after a step with these labels `[B, C]` and predictions."""
    newest = jnp.mean(jnp.concatenate(predicted), axis=0)
    return {
        "labels": 0.999 * state["labels"] + 0.001 * jnp.mean(labels, axis=0),
        "guesses": losses.push(state["guesses"], newest[None]),
    }


def _rotation_loss(apply, params, images):
    """The head's cross-entropy `[]` for the angles by which images are rotated."""
    turned, turns = _turn(images)
    _, features, _ = apply.with_features(params, turned)
    return jnp.mean(losses.cross_entropy(_ROTATION(params, features), turns))


def _turn(images):
    """Images `[N, H, H, C]`, rotated per quarter of the batch, and one-hot angles `[N, 4]`."""
    quarters = zip(jnp.split(images, 4), (0, 2, 1, 3), strict=True)
    turned = [jnp.rot90(quarter, turns, axes=(1, 2)) for quarter, turns in quarters]
    return jnp.concatenate(turned), jnp.repeat(jnp.eye(4), len(images) // 4, axis=0)
