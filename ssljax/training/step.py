"""The training step: sample → augment → guess → loss → update, a pure function of (state, data)."""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from clu.metrics import Average

from ssljax import losses
from ssljax.augment import policies
from ssljax.augment.augmentation import Augmentation
from ssljax.augment.ops import to_float
from ssljax.data.batches import RawBatch, TrainingData
from ssljax.data.sampling import look_up
from ssljax.methods.method import Aux, Batch, Method, Progress
from ssljax.network import merged
from ssljax.training.microbatches import accumulated
from ssljax.training.monitors import Metrics, class_monitors, monitors
from ssljax.training.optim import moving_average
from ssljax.training.passes import Network
from ssljax.training.replica import SINGLE, Replica
from ssljax.training.state import TrainState, Weights
from ssljax.training.trainable import ALL, Trainable

PyTree = Any


class Guesses(NamedTuple):
    """The guesses of a step for its unlabelled images, in the batch's order."""

    probabilities: jax.Array | None  # [M, C] float32; None: the method makes no guesses
    weights: jax.Array | None  # [M] float32, how much each guess counted; None: fully


def make_train_step(
    *,
    model: nn.Module,
    method: Method,
    optimizer: optax.GradientTransformation,
    schedule: optax.Schedule,
    augmentation: Augmentation,
    batch_size: int,
    uratio: int,
    num_steps: int,
    ema_decay: float,
    average_batch_stats: bool = False,
    adjustment: np.ndarray | None = None,
    trainable: Trainable = ALL,
    microbatches: int = 1,
    looped: bool = False,
    image_shape: tuple[int, ...] | None = None,
    replica: Replica = SINGLE,
    with_guesses: bool = False,
) -> Callable[..., Any]:
    """Builds `train_step(state, data) -> (state, metrics)`, or with `Guesses` as a third result.

    Args:
      augmentation: has the views that the method names.
      batch_size: labelled images per step, over all devices; a multiple of `replica.size`.
      uratio: unlabelled images per labelled image.
      num_steps: planned length of the run, for schedules.
      average_batch_stats: whether BatchNorm statistics are averaged too.
      adjustment: `[classes]` float32, see `Batch.adjustment`.
      trainable: which parameters are trained.
      microbatches: number of equal parts in which a device computes its share of the batch.
      looped: whether these run in a loop on the device, see `accumulated`.
      image_shape: shape of images that `TrainingData` has as rows of pixels.
      replica: the device that the step runs on.
      with_guesses: whether the step also returns its guesses on this device.
    """

    def train_step(state: TrainState, data: TrainingData | RawBatch) -> tuple[Any, ...]:
        *order_keys, step_key = jax.random.split(state.key, 3)
        augment_key, noise_key, probe_key, model_key = jax.random.split(
            jax.random.fold_in(step_key, state.step), 4
        )
        views = {**policies.PLAIN, **augmentation.views(state.augment)}
        rows = replica.rows(batch_size), replica.rows(batch_size * uratio)
        sizes = batch_size, batch_size * uratio if method.views else 0
        raw = data
        if isinstance(data, TrainingData):
            raw = look_up(data, state.step, order_keys, sizes, rows, image_shape)
        batch, unlabeled_labels = _augment(raw, rows, augment_key, method, views, replica)
        noise = _noise(method, noise_key, _floats(batch), replica)
        progress = _progress(state.step, batch_size, num_steps)

        def gradient(part, batch, noise):
            own = replica._replace(parts=microbatches, part=part)
            network = _network(model, method, state, model_key, own, batch, trainable)
            batch = _floats(batch)._replace(adjustment=adjustment)

            def loss(params):
                return _loss(method, params, state, network, batch, noise, progress)

            return jax.value_and_grad(loss, has_aux=True)(state.params)

        (value, aux), grads = accumulated(gradient, (batch, noise), microbatches, looped=looped)
        updates, opt_state = optimizer.update(replica.mean(grads), state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        metrics = _metrics(value, aux, schedule(state.step), unlabeled_labels)
        after = state.replace(
            step=state.step + 1,
            params=params,
            batch_stats=replica.mean(aux.batch_stats),
            opt_state=opt_state,
            method=aux.state,
        )
        after = _average(after, ema_decay, average_batch_stats)
        if augmentation.update is not None:
            keys = _keys(probe_key, rows[0])
            classify = _classifier(model)
            after = _learn(after, keys, raw, classify, augmentation, replica)
        result = after, replica.sum(metrics)
        return (*result, Guesses(aux.guess, aux.mask)) if with_guesses else result

    return train_step


def _metrics(value, aux, learning_rate, unlabeled_labels):
    """The logs of a step on this device, and the metrics of its guesses."""
    logs = aux.logs | {"loss/total": value, "learning_rate": learning_rate}
    metrics = {name: Average(jnp.asarray(x), jnp.ones(())) for name, x in logs.items()}
    return metrics | monitors(aux, unlabeled_labels) | class_monitors(aux, unlabeled_labels)


def _progress(step, batch_size, num_steps):
    return Progress((step * batch_size).astype(jnp.float32), step / num_steps, step)


def _average(state, decay, average_batch_stats):
    """The state with its moving averages updated."""
    statistics = ()
    if average_batch_stats:
        statistics = moving_average(state.ema_batch_stats, state.batch_stats, decay)
    ema = moving_average(state.ema, state.params, decay)
    return state.replace(ema=ema, ema_batch_stats=statistics)


def _network(model, method, state, key, replica, batch, trainable):
    """The network that the method calls in this step."""
    return Network(
        model,
        batch_stats=state.batch_stats,
        averaged=state.weights("ema").batch_stats,
        key=key,
        replica=replica,
        whole=method.joint,
        sizes=(len(batch.labeled), len(batch.views[0]) if batch.views else 1),
        trainable=trainable,
        frozen=state.frozen,
    )


def _loss(method, params, state, network, batch, noise, progress):
    """Calls a method's loss, and checks its result while the step is traced.

    Raises:
      ValueError: the result is not what `methods/method.py` requires.
    """
    returned = method.loss(params, state.ema, network, batch, noise, state.method, progress)
    value, aux = returned if isinstance(returned, tuple) and len(returned) == 2 else (returned, ())
    if not isinstance(aux, Aux) or jnp.shape(value) != ():
        kinds = ", ".join(type(x).__name__ for x in (value, aux))
        raise ValueError(
            f"the loss returned ({kinds}), with a value of shape {list(jnp.shape(value))}; "
            "allowed: (a number, ssljax.methods.method.Aux)"
        )
    _check_logs(aux)
    return value, aux


def _check_logs(aux):
    """Raises ValueError if a log is not a scalar."""
    for name, log in aux.logs.items():
        if jnp.shape(log) != ():
            raise ValueError(
                f"the loss's log {name!r} has the shape {list(jnp.shape(log))}; allowed: a number"
            )


def _augment(raw, rows, augment_key, method, views, replica):
    """The method's batch of augmented uint8 images, and the unlabelled images' labels `[M]`."""
    labeled, unlabeled = (raw.labeled, rows[0]), (raw.unlabeled, rows[1])
    sources = [(method.labeled_view, *labeled)]
    sources += [(name, *unlabeled) for name in method.views]
    sources += [(name, *labeled) for name in method.more_labeled_views]
    seen = _seen(sources, augment_key, views)
    if method.joint:
        seen = _gathered(seen, replica)
        raw = raw._replace(labeled=None, unlabeled=None)
        raw = jax.tree.map(replica.gather, raw)
    others = 1 + len(method.views)
    batch = Batch(
        labeled=seen[0],
        labels=raw.labels,
        views=tuple(seen[1:others]),
        labeled_index=raw.labeled_index,
        unlabeled_index=raw.unlabeled_index,
        more_labeled=tuple(seen[others:]),
    )
    return batch, raw.unlabeled_labels


def _seen(sources, key, views):
    """Augments the images of each of several sources, (view, images, rows).

    A view is called once for all its sources, as each image has its own key.
    """
    drawn = jax.random.split(key, len(sources))
    keys = [_keys(key, rows) for key, (_, _, rows) in zip(drawn, sources, strict=True)]
    seen = [None] * len(sources)
    for view in dict.fromkeys(name for name, _, _ in sources):
        own = [i for i, (name, _, _) in enumerate(sources) if name == view]
        images = jnp.concatenate([sources[i][1] for i in own])
        images = views[view](jnp.concatenate([keys[i] for i in own]), images)
        for i, part in zip(own, _split(images, [len(keys[i]) for i in own]), strict=True):
            seen[i] = part
    return seen


def _gathered(parts, replica):
    """The rows of all devices of each of several arrays, in order, in one transfer."""
    shape, flat = parts[0].shape[1:], [part.reshape(len(part), -1) for part in parts]
    every = replica.gather(jnp.concatenate(flat)[None])  # [devices, rows, numbers]
    parts = _split(every, [len(part) for part in parts], axis=1)
    return [part.reshape(-1, *shape) for part in parts]


def _split(array, lengths, axis=0):
    """Splits an array into parts of these lengths."""
    return jnp.split(array, np.cumsum(lengths)[:-1], axis)


def _floats(batch):
    """The batch with its images converted to the network's input."""
    images = {
        name: jax.tree.map(_input, getattr(batch, name))
        for name in ("labeled", "views", "more_labeled")
    }
    return batch._replace(**images)


def _input(images):
    """The network's input: pixels become float32 in -1..1, and features do not change."""
    return to_float(images) if images.dtype == jnp.uint8 else images


def _keys(key, rows):
    """One key per row of the complete batch, so that views do not depend on the devices."""
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, rows)


def _noise(method, key, batch, replica):
    """The random numbers of `method.noise` for the complete batch, or for this device's rows."""
    if method.joint:
        return method.noise(key, batch)
    noise = method.noise(key, replica.gather(batch))
    return jax.tree.map(lambda x: x[replica.rows(len(x))], noise)


def _learn(state, keys, raw, classify, augmentation, replica):
    """The state after the augmentation has learned from probes of the labelled images.

    Every device learns from the probes of all, so that the result does not depend on the devices.
    """
    probes, applied = augmentation.probe(keys, raw.labeled, state.augment)
    logits = classify(state.weights("ema"), probes)
    match = jnp.take_along_axis(jax.nn.softmax(logits), raw.labels[:, None], axis=-1)[:, 0]
    applied, match = jax.tree.map(replica.gather, (applied, match))
    return state.replace(augment=augmentation.update(state.augment, applied, match))


def _classifier(model: nn.Module) -> Callable[[Weights, jax.Array], Any]:
    """A function (weights, uint8 images `[N, H, W, C]`) -> logits `[N, classes]`, to evaluate."""

    def classify(weights, images):
        params = merged(weights.params, weights.frozen)
        variables = {"params": params, "batch_stats": weights.batch_stats}
        return model.apply(variables, _input(images), train=False)[0]

    return classify


def make_eval_step(
    model: nn.Module,
) -> Callable[..., tuple[Metrics, tuple[jax.Array, jax.Array]]]:
    """Builds `eval_step(weights, images, labels, mask) -> (metrics, guesses)`.

    `images [N, H, W, C]` uint8, `labels [N]` int32, `mask [N]` float32: 0 for padding. The guesses
    are each image's predicted class, `[N]` int32, and its probability, `[N]` float32.
    """

    classify = _classifier(model)

    def eval_step(weights, images, labels, mask):
        logits = classify(weights, images)
        targets = jax.nn.one_hot(labels, logits.shape[-1])
        correct = (jnp.argmax(logits, axis=-1) == labels).astype(jnp.float32)
        loss = losses.cross_entropy(logits, targets)
        values = {"accuracy": correct, "loss": loss}
        if logits.shape[-1] > 10:
            true = jnp.take_along_axis(logits, labels[:, None], axis=-1)
            values["accuracy_top5"] = (jnp.sum(logits > true, axis=-1) < 5).astype(jnp.float32)
        count = jnp.sum(mask)
        means = {name: Average(jnp.sum(x * mask), count) for name, x in values.items()}
        predicted = jnp.argmax(logits, axis=-1).astype(jnp.int32)
        classes = Average(mask @ jax.nn.one_hot(predicted, logits.shape[-1]), count)
        confidence = jnp.max(jax.nn.softmax(logits), axis=-1)
        return means | {"classes": classes}, (predicted, confidence)

    return eval_step
