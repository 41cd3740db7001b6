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
from ssljax.data import fingerprint, splits, streaming
from ssljax.data.batches import RawBatch, TrainingData
from ssljax.data.datasets import Dataset
from ssljax.data.splits import Split
from ssljax.data.streaming import StreamedDataset
from ssljax.methods.method import Method, Sizes
from ssljax.training import (
    devices,
    fitting,
    hosts,
    monitors,
    parallel,
    step_flops,
    step_memory,
)
from ssljax.training.pretrained import Pretrained
from ssljax.training.state import TrainState, init_state
from ssljax.training.step import SINGLE, make_eval_step, make_train_step
from ssljax.training.stream import Feed, Stream
from ssljax.training.trainable import Trainable

# What may go wrong in training, see `run/health.py`.
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
        method = self.method
        labeled = 1 + len(method.more_labeled_views)
        return self.batch_size * (labeled + self.uratio * len(method.views))

    @property
    def sizes(self) -> Sizes:
        """The numbers of images and classes that the method's state may depend on."""
        return Sizes(
            classes=self.dataset.num_classes,
            class_counts=self.class_counts,
            unlabeled=len(self.split.unlabeled),
            batch=self._sizes(),
            guesses=self.guesses,
        )

    @functools.cached_property
    def data_record(self) -> dict[str, Any]:
        """The fingerprint of the data, see `data/fingerprint.py`."""
        return fingerprint.record(self.dataset)

    @functools.cached_property
    def class_counts(self) -> np.ndarray:
        """Labelled images of each class, `[classes]` int64."""
        return splits.class_counts(self.dataset.labels, self.split, self.dataset.num_classes)

    @property
    def adjustment(self) -> np.ndarray | None:
        """The value of `Batch.adjustment`, `[classes]` float32.

        Raises:
          ValueError: a class has no labelled image.
        """
        if not self.logit_adjustment:
            return None
        return losses.logit_adjustment(self.class_counts, self.logit_adjustment)

    def init_state(self) -> TrainState:
        """The state before the first step, on the host."""
        if self.start is None:
            return jax.device_get(self._initialize(self._key()))

        # Both are one program, so that XLA drops the random draws of weights that are replaced:
        # compiling the draws of a pretrained network takes longer than training its last layer.
        @jax.jit
        def initialize(key: jax.Array, params: Any, batch_stats: Any) -> TrainState:
            return self._initialize(key).starting_with(params, batch_stats)

        return jax.device_get(initialize(self._key(), self.start.params, self.start.batch_stats))

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
    def step_flops(self) -> int:
        """The multiplications and additions of a device in a step, see `training/step_flops.py`."""
        return self._traced[2]

    @property
    def state_bytes(self) -> int:
        """How much memory the state of training needs on each device."""
        return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(self.shapes["state"]))

    @property
    def data_bytes(self) -> int:
        """How much memory the data need on each device; of a stream nothing stays there."""
        resident = isinstance(self.dataset, Dataset)
        return sum(x.nbytes for x in self.data_like()) if resident else 0

    @functools.cached_property
    def _traced(self) -> tuple[dict[str, Any], int, int]:
        state = jax.eval_shape(self._initialize, self._key())
        like, platform = self._read_like(), self.devices[0].platform
        sums, program = parallel.trace_step(self.train_step, state, like, self.devices)
        shapes = {"state": state, "window": sums}
        return (
            shapes,
            step_memory.estimate(program, platform),
            step_flops.count(program, platform),
        )

    def evaluator(self) -> parallel.Evaluate:
        """The exact evaluation, which is compiled once."""
        return self._evaluator

    @functools.cached_property
    def _evaluator(self) -> parallel.Evaluator:
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

    def fitting_steps(self) -> parallel.TrainSteps:
        """As `compile_steps`; on accelerators they are compiled now, and fit in their memory.

        Raises:
          UsageError: they do not; says which batch size about would.
        """
        limit = devices.memory_of(self.devices[0])
        if limit is None or not hosts.is_single_process():  # of several, programs take other arrays
            return self._steps
        compiled = fitting.compile_step(
            self.lower_steps(),
            batch_size=self.batch_size,
            devices=len(self.devices),
            unit=len(self.devices) * self.microbatches,
            fixed=self.state_bytes + self.data_bytes,
            limit=limit,
        )
        return self._steps._replace(program=compiled)

    def lower_steps(self) -> jax.stages.Lowered:
        """The program of a call of the steps, from shapes alone."""
        shapes = self.shapes
        return self.compile_steps().lower(shapes["state"], shapes["window"], self._read_like())

    def lower_evaluation(self) -> jax.stages.Lowered:
        """The program of the evaluation of one batch and model, from shapes alone."""
        weights = self.shapes["state"].weights("ema")
        return self._evaluator.lower(weights, self.dataset.image_shape)

    def feed(self, step: int) -> AbstractContextManager[Feed]:
        """The data that the steps read from `step` on, on the devices."""
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

    def _read_like(self) -> TrainingData | RawBatch:
        """Arrays or shapes of what each device reads in a call of the steps."""
        if not isinstance(self.dataset, StreamedDataset):
            return self.data_like()
        labeled, unlabeled = (total // len(self.devices) for total in self._sizes())
        return streaming.batch_like((labeled, unlabeled), self.dataset.image_shape)

    def data(self) -> TrainingData:
        """The arrays that the steps read of a data set in memory, on the host."""
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
        """Called on the host before a run continues from `state`."""

    def probabilities(self, model: Any, images: np.ndarray) -> np.ndarray:
        """Probabilities `[N, classes]` of uint8 images by `model`, a `trained.Trained`."""
        found: np.ndarray = model.predict_proba(images)
        return found
