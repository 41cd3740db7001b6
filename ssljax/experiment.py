"""The parts of a run, and how they compile. Knows no config object and no run directory."""

import dataclasses
import functools
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import optax

from ssljax import losses
from ssljax.augment.augmentation import Augmentation
from ssljax.data import check, fingerprint, memory, splits, streaming
from ssljax.data.batches import RawBatch, TrainingData
from ssljax.data.datasets import Dataset
from ssljax.data.splits import Split
from ssljax.data.streaming import StreamedDataset
from ssljax.methods.method import Method, Sizes
from ssljax.training import monitors, parallel, step_memory
from ssljax.training.pretrained import Pretrained
from ssljax.training.state import TrainState, init_state
from ssljax.training.step import SINGLE, make_eval_step, make_train_step
from ssljax.training.stream import Feed, Stream
from ssljax.training.trainable import Trainable

# What may go wrong in training, see `run/health.py`.
_ROUNDS = 3  # times that an average must be able to forget where it began
HEALTH_KINDS = ("non_finite", "mask_rate", "collapse")


@dataclasses.dataclass(frozen=True)
class Experiment:
    """The parts of a run. Sizes count images over all devices, lengths count steps."""

    config: dict[str, Any]  # what `config.json` records
    dataset: Dataset | StreamedDataset
    split: Split
    model: nn.Module
    method: Method
    optimizer: optax.GradientTransformation
    schedule: optax.Schedule
    augmentation: Augmentation
    trainable: Trainable
    devices: list[jax.Device]
    seed: int
    batch_size: int
    uratio: int
    microbatches: int
    ema_decay: float
    ema_batch_stats: bool
    logit_adjustment: float  # τ of the labelled loss, see `losses.logit_adjustment`; 0: none
    num_steps: int
    steps_per_run: int
    log_every: int
    eval_every: int
    eval_batch_size: int
    keep_checkpoints: int
    fallback: bool  # whether a damaged checkpoint gives way to the one before
    stop_on: tuple[str, ...]  # of `HEALTH_KINDS`
    train_url: str  # where the run directory is copied when the run ends; "": nowhere
    start: Pretrained | None = None  # weights before the first step; None: random ones
    guesses: np.ndarray | None = None  # see `methods.method.Sizes`

    holds = "uint8 images"  # what the devices hold of a data set in memory

    @property
    def images_per_step(self) -> int:
        """Images that enter the network in a step, each view counted."""
        return self.batch_size * (1 + self.uratio * len(self.method.views))

    @property
    def sizes(self) -> Sizes:
        """What the method's state may depend on."""
        return Sizes(
            classes=self.dataset.num_classes,
            class_counts=self.class_counts,
            unlabeled=len(self.split.unlabeled),
            batch=self._sizes(),
            guesses=self.guesses,
        )

    @functools.cached_property
    def data_record(self) -> dict[str, Any]:
        """What tells the data from others, see `data/fingerprint.py`."""
        return fingerprint.record(self.dataset)

    @functools.cached_property
    def class_counts(self) -> np.ndarray:
        """Labelled images of each class, `[classes]` int64."""
        return splits.class_counts(self.dataset.labels, self.split, self.dataset.num_classes)

    @property
    def adjustment(self) -> np.ndarray | None:
        """What `Batch.adjustment` is, `[classes]` float32.

        Raises:
          ValueError: a class has no labelled image.
        """
        if not self.logit_adjustment:
            return None
        return losses.logit_adjustment(self.class_counts, self.logit_adjustment)

    def init_state(self) -> TrainState:
        """The state before the first step, on the host."""
        state: TrainState = jax.device_get(self._initialize(self._key()))
        if self.start is None:
            return state
        return state.starting_with(self.start.params, self.start.batch_stats)

    def _key(self) -> jax.Array:
        return jax.random.PRNGKey(self.seed)

    @functools.cached_property
    def _initialize(self) -> Callable[[jax.Array], TrainState]:
        """`key -> state`, traced once: for the shapes, and for the state itself."""

        def initialize(key: jax.Array) -> TrainState:
            return init_state(
                key,
                model=self.model,
                method=self.method,
                optimizer=self.optimizer,
                image_shape=self.dataset.image_shape,
                sizes=self.sizes,
                augment=self.augmentation.init(),
                average_batch_stats=self.ema_batch_stats,
                trainable=self.trainable,
            )

        return jax.jit(initialize)

    @functools.cached_property
    def train_step(self) -> Callable[..., Any]:
        """The pure step, for `compile_steps`: it must run on all devices at once.

        It is traced once: for the shapes of its metrics, and for what is compiled.
        """
        step = self._make_step(self.model, replica=parallel.replica(self.devices))
        return jax.jit(step, inline=True)

    def single_step(self, *, guesses: bool = False) -> Callable[..., Any]:
        """The step as a plain function for one device, which `jax.jit` takes.

        Args:
          guesses: whether it returns the `Guesses` for the unlabelled images too.

        Returns:
          `step(state, data) -> (state, metrics)`, or `(state, metrics, guesses)`. `state` starts as
          `init_state()`, `data` is `data()`; metrics are means, `[]` float32, by their names.
        """
        model = self.model
        if hasattr(model, "axis_name"):
            model = model.clone(axis_name=None)
        step = self._make_step(model, replica=SINGLE, with_guesses=guesses)

        def single_step(state: TrainState, data: TrainingData | RawBatch) -> tuple[Any, ...]:
            state, metrics, *rest = step(state, data)
            return (state, monitors.means(metrics), *rest)

        return single_step

    def _make_step(self, model: nn.Module, **options: Any) -> Callable[..., Any]:
        return make_train_step(
            model=model,
            method=self.method,
            optimizer=self.optimizer,
            schedule=self.schedule,
            augmentation=self.augmentation,
            batch_size=self.batch_size,
            uratio=self.uratio,
            num_steps=self.num_steps,
            ema_decay=self.ema_decay,
            average_batch_stats=self.ema_batch_stats,
            trainable=self.trainable,
            adjustment=self.adjustment,
            microbatches=self.microbatches,
            looped=self.devices[0].platform != "cpu",
            image_shape=self.dataset.image_shape,
            **options,
        )

    @property
    def shapes(self) -> dict[str, Any]:
        """Shapes of what a checkpoint holds: the state, and the sums of metrics not yet logged.

        Traces the step, so that sizes that do not fit together raise here; compiles nothing.
        """
        return self._traced[0]

    @property
    def step_bytes(self) -> int:
        """About how much memory a device needs for a step, beside the data and the state."""
        return self._traced[1]

    @property
    def data_bytes(self) -> int:
        """How much memory the data need on each device; of a stream nothing stays there."""
        resident = isinstance(self.dataset, Dataset)
        return sum(x.nbytes for x in self.data_like()) if resident else 0

    @functools.cached_property
    def _traced(self) -> tuple[dict[str, Any], int]:
        state = jax.eval_shape(self._initialize, self._key())
        streamed = isinstance(self.dataset, StreamedDataset)
        data = self._batch_shape() if streamed else self.data_like()
        sums, program = parallel.trace_step(self.train_step, state, data, self.devices)
        return {"state": state, "window": sums}, step_memory.estimate(
            program, self.devices[0].platform
        )

    def evaluator(self) -> parallel.Evaluate:
        """The exact evaluation, which is compiled once."""
        return self._evaluator

    @functools.cached_property
    def _evaluator(self) -> parallel.Evaluate:
        step = make_eval_step(self.model)
        return parallel.compile_evaluate(step, self.devices, batch_size=self.eval_batch_size)

    def compile_steps(self) -> parallel.TrainSteps:
        """The steps, compiled once for the devices; what they read is `feed`."""
        return self._steps

    @functools.cached_property
    def _steps(self) -> parallel.TrainSteps:
        if isinstance(self.dataset, StreamedDataset):
            return parallel.compile_streamed_steps(self.train_step, self.devices)
        return parallel.compile_steps(self.train_step, self.devices)

    def feed(self, step: int) -> AbstractContextManager[Feed]:
        """What the steps read from `step` on, on the devices."""
        if not isinstance(self.dataset, StreamedDataset):
            return nullcontext(parallel.replicate(self.data(), self.devices))
        batches = streaming.batches(
            self.dataset,
            self.split,
            seed=self.seed,
            start=step,
            stop=self.num_steps,
            sizes=self._sizes(),
            rows=(
                parallel.local_rows(self._sizes()[0], self.devices),
                parallel.local_rows(self._sizes()[1], self.devices),
            ),
        )
        return Stream(batches, lambda batch: parallel.spread(batch, self.devices))

    def _sizes(self) -> tuple[int, int]:
        """Labelled and unlabelled images that a step reads."""
        return self.batch_size, self.batch_size * self.uratio if self.method.views else 0

    def _batch_shape(self) -> RawBatch:
        """What each device reads in a step of a stream."""
        labeled, unlabeled = (total // len(self.devices) for total in self._sizes())

        def images(size: int) -> Any:
            return jax.ShapeDtypeStruct((size, *self.dataset.image_shape), np.uint8)

        def numbers(size: int) -> Any:
            return jax.ShapeDtypeStruct((size,), np.int32)

        raw = RawBatch(images(labeled), numbers(labeled), numbers(labeled))
        if not unlabeled:
            return raw
        return RawBatch(*raw[:3], images(unlabeled), numbers(unlabeled), numbers(unlabeled))

    def data(self) -> TrainingData:
        """What the step reads of a data set in memory, on the host."""
        assert isinstance(self.dataset, Dataset)
        labels = self.dataset.labels.astype(np.int32)
        return TrainingData(
            images=self.dataset.images.reshape(len(labels), -1),
            labeled=self.split.labeled.astype(np.int32),
            labels=labels[self.split.labeled],
            unlabeled=self.split.unlabeled.astype(np.int32),
            unlabeled_labels=labels[self.split.unlabeled],
        )

    def data_like(self) -> TrainingData:
        """Arrays of the types and sizes of `data`."""
        return self.data()

    def begin(self, state: TrainState) -> None:
        """What a run does before it goes on from `state`, on the host."""


def notes(experiment: Experiment) -> list[str]:
    """What may be amiss with a run, a line each; nothing where all is well."""
    lines, steps = [], experiment.num_steps
    rates = {
        "config.ema_decay": experiment.ema_decay,
        "config.model_args.batch_norm_momentum": getattr(
            experiment.model, "batch_norm_momentum", 0.0
        ),
    }
    for knob, decay in rates.items():
        if 0 < decay < 1 and steps * (1 - decay) < _ROUNDS:
            fitting = max(0.5, 1 - 10 / steps)
            lines.append(
                f"note: {knob} is {decay}, which averages over more steps than the {steps} of this "
                f"run: at most {fitting:.3g} would fit"
            )
    start, names = experiment.start, experiment.dataset.class_names
    if start and start.class_names and start.class_names != names:
        c = next(
            c
            for c, pair in enumerate(zip(start.class_names, names, strict=True))
            if len({*pair}) > 1
        )
        lines.append(
            f"note: the last layer of config.init_from knows other classes: {c} is "
            f"{start.class_names[c]!r} there, and {names[c]!r} here"
        )
    overlap = len(np.intersect1d(experiment.split.valid, experiment.split.labeled))
    if overlap:
        lines.append(
            f"note: {overlap} of the {len(experiment.split.valid)} validation images are labelled "
            "images that are trained on; config.unlabeled=strict keeps them apart"
        )
    own_images = experiment.config["dataset"].startswith(("folder:", "npz:", "arrays."))
    if own_images and isinstance(experiment.dataset, Dataset):
        odd = check.lines(experiment.dataset, experiment.split)
        lines += [f"note: {line}" for line in odd]
    return lines


def describe(experiment: Experiment) -> str:
    """What will be trained, on what, in three lines, and notes."""
    data, split, start = experiment.dataset, experiment.split, experiment.start
    height, width, channels = data.image_shape
    where = "data: read from storage step by step, as uint8 images"
    if isinstance(data, Dataset):
        size = memory.describe(experiment.data_bytes)
        where = f"data on each device: {size} of {experiment.holds} and indices"
    where += f"; a step needs about {memory.describe(experiment.step_bytes)} more there"
    state = experiment.shapes["state"]
    trained, frozen = (
        sum(x.size for x in jax.tree.leaves(t)) for t in (state.params, state.frozen)
    )
    weights = f"{trained:,} weights" + (f" to train on {frozen:,} frozen ones" if frozen else "")
    return (
        f"{experiment.config['dataset']}: {len(split.labeled)} labelled, {len(split.unlabeled)} "
        f"unlabelled, {len(split.valid)} validation, {len(data.test_labels)} test images of "
        f"{height}×{width}×{channels}\n"
        f"{where}\n"
        f"{experiment.config['method']}: {experiment.config['model']} with {weights}, "
        f"{experiment.num_steps} steps of {experiment.images_per_step} images on "
        f"{len(experiment.devices)} {experiment.devices[0].platform} device(s)"
        + "".join(f"\n{line}" for line in (start.lines if start else ()))
        + "".join(f"\n{line}" for line in notes(experiment))
    )
