"""Consecutive training steps of a method with a state, and the same steps in NumPy float64.

The network and the numbers are those of `golden.py`. The transcription receives the views and the
random numbers drawn by the real step.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from helpers import golden
from ssljax.augment.augmentation import Augmentation
from ssljax.data.batches import RawBatch
from ssljax.methods.method import Batch, Sizes
from ssljax.training import optim
from ssljax.training.state import TrainState
from ssljax.training.step import make_train_step

LR, MOMENTUM, DECAY, EMA_DECAY = golden.LR, golden.MOMENTUM, golden.DECAY, golden.EMA_DECAY
B, M, UNLABELED = 4, 8, 20  # labelled and unlabelled images per step; unlabelled in total
SIZES = Sizes(golden.CLASSES, np.array([3, 2, 1]), UNLABELED, (B, M))


class Given(NamedTuple):
    """The inputs of a transcription, other than the weights it is differentiated by."""

    constant: Any  # the same weights, for terms without gradient
    ema: Any
    stats: Any
    ema_stats: Any
    batch: Batch  # float64
    noise: Any
    state: Any  # after the previous step
    step: int

    def forward(self, params, *images):
        """Runs `golden.forward_with_features` on all images, with this step's statistics."""
        return golden.forward_with_features(params, np.concatenate(images), self.stats)


def raw_batch(seed, *, twice=False, uratio=M // B):
    """Returns the images of a step.

    Args:
      twice: whether an unlabelled and a labelled image occur twice.
    """
    m = B * uratio
    random = np.random.RandomState(seed)
    labeled = random.permutation(SIZES.labeled)[:B].astype(np.int32)
    unlabeled = random.permutation(UNLABELED)[:m].astype(np.int32)
    if twice:
        labeled[0], unlabeled[1] = labeled[2], unlabeled[6]
    labels = np.repeat(np.arange(golden.CLASSES), SIZES.class_counts).astype(np.int32)
    return RawBatch(
        labeled=np.zeros((B, *golden.PIXELS), np.uint8),
        labels=labels[labeled],
        labeled_index=labeled,
        unlabeled=np.zeros((m, *golden.PIXELS), np.uint8),
        unlabeled_labels=np.full(m, -1, np.int32),
        unlabeled_index=unlabeled,
    )


def _random_view(keys, images):
    return jax.vmap(lambda key: jax.random.bits(key, images.shape[1:], np.uint8))(keys)


VIEWS = {view: _random_view for view in ("weak", "strong", "simclr", "none")}
_64 = lambda tree: jax.tree.map(  # noqa: E731
    lambda x: np.float64(x) if np.issubdtype(x.dtype, np.floating) else np.asarray(x), tree
)
_32 = lambda tree: jax.tree.map(  # noqa: E731
    lambda x: jnp.asarray(x, jnp.float32 if np.asarray(x).dtype == np.float64 else None), tree
)


class Steps:
    """The compiled steps of a method."""

    def __init__(self, method, *, num_steps=100, average_batch_stats=False, uratio=M // B):
        self.method = method
        self._seen = []

        def loss(params, ema_params, apply, batch, noise, state, progress):
            jax.debug.callback(lambda *x: self._seen.append(x), batch, noise)
            return method.loss(params, ema_params, apply, batch, noise, state, progress)

        schedule = optim.make_schedule("constant", lr=LR, steps=num_steps)
        self._optimizer = optim.make_optimizer(
            "sgd", schedule, weight_decay=DECAY, momentum=MOMENTUM
        )
        self._average = average_batch_stats
        step = make_train_step(
            model=golden.Network(),
            method=method._replace(loss=loss),
            optimizer=self._optimizer,
            schedule=schedule,
            augmentation=Augmentation(lambda state: VIEWS, lambda image: {}),
            batch_size=B,
            uratio=uratio,
            num_steps=num_steps,
            ema_decay=EMA_DECAY,
            average_batch_stats=average_batch_stats,
            with_guesses=True,
        )
        self.function, self._step = step, jax.jit(step)

    def initial(self):
        """Returns the state before the first step."""
        params = golden.weights(0, self.method.heads)
        return self._state(0, params, params, golden.STATS, self.method.init(SIZES))

    def _state(self, step, params, ema, stats, method):
        return TrainState(
            step=jnp.int32(step),
            params=_32(params),
            batch_stats=_32(stats),
            ema=_32(ema),
            ema_batch_stats=_32(stats) if self._average else (),
            opt_state=self._optimizer.init(_32(params)),
            method=_32(method),
            augment=(),
            key=jax.random.PRNGKey(3),
        )

    def check(self, calculate, *, steps=2, start=0, state=None, twice=False):
        """Runs steps and compares everything that each changes with `calculate`.

        Args:
          calculate: (params, given) -> `golden.Expected`.
          start: number of the first step.
          state: state of the method; None: the initial one.
          twice: as for `raw_batch`.

        Returns:
          The expected results of each step.
        """
        params = golden.weights(0, self.method.heads)
        ema = golden.weights(20, self.method.heads)
        state = _64(self.method.init(SIZES)) if state is None else state
        stats, ema_stats, trace = golden.STATS, golden.STATS, jax.tree.map(np.zeros_like, params)
        actual = self._state(start, params, ema, stats, state)
        found = []
        for step in range(start, start + steps):
            actual, metrics, guesses = self._step(actual, raw_batch(step, twice=twice))
            jax.effects_barrier()
            batch, noise = _64(self._seen.pop())
            averaged = ema_stats if self._average else stats
            given = Given(params, ema, stats, averaged, batch, noise, state, step)
            expected = calculate(params, given)
            _compare_logs(metrics, expected)
            np.testing.assert_allclose(guesses.probabilities, expected.guess, atol=2e-5)

            decay = jax.tree.map(lambda p, k: DECAY * p * k, params, optim.kernels(params))
            gradient = golden.complex_step(lambda p, g=given: calculate(p, g).total, params)
            gradient = jax.tree.map(np.add, gradient, decay)
            trace = jax.tree.map(lambda t, g: MOMENTUM * t + g, trace, gradient)
            params = jax.tree.map(
                lambda p, g, t: p - LR * (g + MOMENTUM * t), params, gradient, trace
            )
            ema, stats, state = _average(ema, params), expected.stats, expected.state
            ema_stats = _average(ema_stats, stats) if self._average else stats
            golden.close(optax.tree.get(actual.opt_state, "trace"), trace)
            for one, other in (
                (actual.params, params),
                (actual.ema, ema),
                (actual.batch_stats, stats),
                (actual.method, state),
            ):
                golden.close(one, other)
            found.append(expected)
        return found


def _compare_logs(metrics, expected):
    logs = {k: v.total for k, v in metrics.items() if not k.startswith("guess/")}
    golden.close(logs, expected.logs | {"loss/total": expected.total, "learning_rate": LR})


def _average(old, new):
    return jax.tree.map(lambda e, p: EMA_DECAY * e + (1 - EMA_DECAY) * p, old, new)


def evaluate(params, images, stats):
    """Returns logits and features of `golden.Network` in evaluation mode."""
    x = images.reshape(len(images), -1)
    norm, old = params["BatchNorm_0"], stats["BatchNorm_0"]
    x = (x - old["mean"]) / np.sqrt(old["var"] + 0.01) * norm["scale"] + norm["bias"]
    features = np.tanh(golden.dense(params["Dense_0"], x))
    return golden.dense(params["Dense_1"], features), features


def one_hot(labels):
    return np.eye(golden.CLASSES)[labels]


def weak_and_strong(params, given):
    """Runs one pass over [labelled, weak, strong] in float64.

    Returns:
      Logits of labelled images, probabilities of weak views, logits of strong views, statistics.
    """
    images = given.batch.labeled, *given.batch.views
    logits, _, stats = given.forward(params, *images)
    fixed, _, _ = given.forward(given.constant, *images)
    return logits[:B], golden.softmax(fixed[B : B + M]), logits[B + M :], stats
