"""One training step on fixed numbers, and the same step in NumPy float64.

`check` runs the real step: a tiny network with BatchNorm, gradients, SGD, moving averages. A test
transcribes the loss of its method from the published code; everything else is transcribed here.

Float32 rounds at 6e-8, and a step is a chain of dozens of operations, with sums that cancel: it
agrees with float64 to 1e-5 of the largest entry of each array.
"""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from ssljax.augment import augmentation, policies
from ssljax.data.batches import TrainingData
from ssljax.methods.method import Sizes
from ssljax.training import optim
from ssljax.training.state import TrainState
from ssljax.training.step import make_train_step

CLASSES, FEATURES, PIXELS = 3, 5, (2, 2, 1)
LR, MOMENTUM, DECAY, EMA_DECAY = 0.1, 0.9, 0.01, 0.9


class Network(nn.Module):
    """BatchNorm, a feature layer and a classification layer."""

    @nn.compact
    def __call__(self, images, *, train):
        x = images.reshape(len(images), -1)
        x = nn.BatchNorm(use_running_average=not train, momentum=0.9, epsilon=0.01)(x)
        features = jnp.tanh(nn.Dense(FEATURES)(x))
        return nn.Dense(CLASSES)(features), features


def numbers(seed, *shape, scale=1.0):
    """Returns float64 numbers that are exact in float32."""
    return np.float64(np.float32(scale * np.random.RandomState(seed).normal(size=shape)))


def images(seed, n):
    return np.float64(np.float32(np.random.RandomState(seed).uniform(-1, 1, (n, *PIXELS))))


def weights(seed, heads=()):
    """Returns weights of `Network`, and of heads (`heads.Head`)."""
    pixels = int(np.prod(PIXELS))

    def dense(seed, inputs, outputs):
        return {"kernel": numbers(seed, inputs, outputs), "bias": numbers(seed + 1, outputs)}

    def drawn(head):
        shapes = jax.eval_shape(lambda key: head.init(key, FEATURES, CLASSES), jax.random.key(0))
        leaves, structure = jax.tree.flatten(shapes)  # biases before kernels
        seeds = range(seed + 5 + len(leaves), seed + 5, -1)
        return structure.unflatten(numbers(s, *x.shape) for s, x in zip(seeds, leaves, strict=True))

    params = {
        "BatchNorm_0": {"scale": 1 + numbers(seed, pixels, scale=0.3), "bias": numbers(9, pixels)},
        "Dense_0": dense(seed + 2, pixels, FEATURES),
        "Dense_1": dense(seed + 4, FEATURES, CLASSES),
    }
    return params | ({"heads": {head.name: drawn(head) for head in heads}} if heads else {})


STATS = {"BatchNorm_0": {"mean": numbers(50, 4, scale=0.1), "var": 1 + numbers(51, 4, scale=0.1)}}


def forward(params, images, head=None):
    """Returns logits and new statistics of `Network` in training mode; accepts complex numbers.

    Args:
      head: a dense head, whose outputs are returned instead of the logits.
    """
    logits, features, stats = forward_with_features(params, images)
    if head:
        logits = dense(params["heads"][head], features)
    return logits, stats


def dense(layer, features):
    return features @ layer["kernel"] + layer.get("bias", 0)


def forward_with_features(params, images, old=STATS):
    """Returns logits, features and new statistics."""
    x = images.reshape(len(images), -1)
    mean = x.mean(axis=0)
    var = ((x - mean) ** 2).mean(axis=0)
    norm = params["BatchNorm_0"]
    x = (x - mean) / np.sqrt(var + 0.01) * norm["scale"] + norm["bias"]
    features = np.tanh(dense(params["Dense_0"], x))
    old = old["BatchNorm_0"]
    stats = {"mean": 0.9 * old["mean"] + 0.1 * mean, "var": 0.9 * old["var"] + 0.1 * var}
    return dense(params["Dense_1"], features), features, {"BatchNorm_0": stats}


def softmax(logits):
    powers = np.exp(logits)
    return powers / powers.sum(axis=-1, keepdims=True)


def cross_entropy(logits, targets):
    return -(targets * np.log(softmax(logits))).sum(axis=-1)


def interleave(experiment):
    """`libml/layers.py`: slice i of part 0 is swapped with slice i of part i."""
    n, batch = len(experiment), len(experiment[0])
    lengths = [batch // n + (i >= n - batch % n) for i in range(n)]  # the longer ones come last
    mixed = [part.copy() for part in experiment]
    for i in range(1, n):
        rows = slice(sum(lengths[:i]), sum(lengths[: i + 1]))
        mixed[0][rows], mixed[i][rows] = experiment[i][rows], experiment[0][rows]
    return mixed


def interleaved_forward(params, experiment):
    """Returns logits of each part, and the statistics after each sub-batch."""
    outputs = [forward(params, sub_batch) for sub_batch in interleave(experiment)]
    return interleave([logits for logits, _ in outputs]), [stats for _, stats in outputs]


def mixup(experiment, noise):
    """Mixes parts `[B, ...]` with each other, row by row."""
    everything = np.concatenate(experiment)
    lam = noise["lam"].reshape(-1, *[1] * (everything.ndim - 1))
    mixed = lam * everything + (1 - lam) * everything[noise["permutation"]]
    return np.split(mixed, len(experiment))


def mixup_noise(seed, n):
    random = np.random.RandomState(seed)
    lam = np.float64(np.float32(random.uniform(0.5, 1, n)))
    return {"lam": lam, "permutation": random.permutation(n)}


def sizes(classes=CLASSES, counts=None, unlabeled=8):
    """Returns sizes of data; by default class i has i + 1 labelled images."""
    counts = np.arange(1, classes + 1) if counts is None else np.array(counts)
    return Sizes(classes, counts, unlabeled)


class Expected(NamedTuple):
    """The results of a transcribed loss."""

    total: Any
    logs: dict[str, Any]
    stats: Any
    guess: Any
    state: Any = ()


def complex_step(function, point):
    """Returns the gradient of `function` without cancellation, by a tiny imaginary step."""
    leaves, structure = jax.tree.flatten(point)
    gradients = []
    for index, leaf in enumerate(leaves):
        gradient = np.zeros(leaf.shape)
        for entry in np.ndindex(leaf.shape):
            moved = leaf.astype(complex)
            moved[entry] += 1e-30j
            tree = jax.tree.unflatten(structure, [*leaves[:index], moved, *leaves[index + 1 :]])
            gradient[entry] = np.imag(function(tree)) / 1e-30
        gradients.append(gradient)
    return jax.tree.unflatten(structure, gradients)


def close(actual, expected):
    assert jax.tree.structure(actual) == jax.tree.structure(expected)

    def compare(a, b):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * np.max(np.abs(b)))

    jax.tree.map(compare, actual, expected)


def check(method, batch, noise, calculate, *, state=(), step=0, num_steps=100, adjustment=None):
    """Runs one step of a method and compares everything that it changes with `calculate`.

    Args:
      batch, noise, state: float64; converted to float32 for the step.
      calculate: (params, constant, ema) -> Expected. Gradients are with respect to params;
        `constant` are the same weights, for terms without gradient.
      adjustment: `[classes]` float64, passed to the step.
    """
    params, ema = weights(0, method.heads), weights(20, method.heads)
    n, m = len(batch.labeled), len(batch.views[0]) if batch.views else 0
    in_float32 = lambda tree: jax.tree.map(  # noqa: E731
        lambda x: jnp.asarray(x, jnp.float32 if x.dtype == np.float64 else jnp.int32), tree
    )
    given = in_float32(batch)

    def loss(params, ema_params, apply, batch, noise, state, progress):
        assert batch.labeled.shape == given.labeled.shape
        ours = given._replace(adjustment=batch.adjustment)
        return method.loss(params, ema_params, apply, ours, noise, state, progress)

    schedule = optim.make_schedule("constant", lr=LR, steps=num_steps)
    optimizer = optim.make_optimizer("sgd", schedule, weight_decay=DECAY, momentum=MOMENTUM)
    train_step = make_train_step(
        model=Network(),
        method=method._replace(noise=lambda key, batch: in_float32(noise), loss=loss),
        optimizer=optimizer,
        schedule=schedule,
        augmentation=augmentation.none(policies.none, ""),
        batch_size=n,
        uratio=max(m // n, 1),
        num_steps=num_steps,
        ema_decay=EMA_DECAY,
        adjustment=None if adjustment is None else np.float32(adjustment),
    )
    before = TrainState(
        step=jnp.int32(step),
        params=in_float32(params),
        batch_stats=in_float32(STATS),
        ema=in_float32(ema),
        ema_batch_stats=(),
        opt_state=optimizer.init(in_float32(params)),
        method=in_float32(state),
        augment=(),
        key=jax.random.PRNGKey(0),
    )
    data = TrainingData(
        images=np.zeros((n + m, *PIXELS), np.uint8),
        labeled=np.arange(n, dtype=np.int32),
        labels=np.zeros(n, np.int32),
        unlabeled=np.arange(n, n + m, dtype=np.int32),
        unlabeled_labels=np.full(m, -1, np.int32),
    )
    after, metrics = jax.jit(train_step)(before, data)

    expected = calculate(params, params, ema)
    logs = {k: v.total for k, v in metrics.items() if not k.startswith("guess/")}
    close(logs, expected.logs | {"loss/total": expected.total, "learning_rate": LR})
    if expected.guess is not None:
        confidence = metrics["guess/confidence"]
        close(confidence.total / confidence.count, expected.guess.max(axis=1).mean())

    decay = jax.tree.map(lambda p, k: DECAY * p * k, params, optim.kernels(params))
    gradient = complex_step(lambda p: calculate(p, params, ema).total, params)
    gradient = jax.tree.map(np.add, gradient, decay)
    moved = jax.tree.map(lambda p, g: p - LR * (1 + MOMENTUM) * g, params, gradient)
    close(optax.tree.get(after.opt_state, "trace"), gradient)
    close(after.params, moved)
    close(after.ema, jax.tree.map(lambda e, p: EMA_DECAY * e + (1 - EMA_DECAY) * p, ema, moved))
    close(after.batch_stats, expected.stats)
    close(after.method, expected.state)
    assert after.step == step + 1
    return gradient
