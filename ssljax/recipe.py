"""A config -> the parts of a run. The only file of the package that reads a config object.

Everything that can be wrong with a config is found here, before anything is compiled or written.
"""

import dataclasses
import functools
import inspect
import math
import re
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import ml_collections
import numpy as np
import optax

import ssljax.methods
from ssljax import lookup, stage
from ssljax.augment import augmentation, policies
from ssljax.augment.augmentation import Augmentation
from ssljax.checks import call, naming, require_choice, require_range
from ssljax.data import imagenet, memory
from ssljax.data.datasets import Dataset
from ssljax.data.imagenet import StreamedDataset
from ssljax.data.load import CONVENTIONS, load
from ssljax.data.splits import Split
from ssljax.errors import UsageError
from ssljax.lookup import find, modules_of
from ssljax.methods.method import Method
from ssljax.training import health, hosts, optim, parallel
from ssljax.training.state import TrainState, init_state
from ssljax.training.step import Data, Sample, make_eval_step, make_train_step


@dataclasses.dataclass(frozen=True)
class Recipe:
    """The parts of a run. Sizes count images over all devices, lengths count steps."""

    config: dict[str, Any]  # what `config.json` records
    dataset: Dataset | StreamedDataset
    split: Split
    model: nn.Module
    method: Method
    optimizer: optax.GradientTransformation
    schedule: optax.Schedule
    augmentation: Augmentation
    devices: list[jax.Device]
    seed: int
    batch_size: int
    uratio: int
    ema_decay: float
    ema_batch_stats: bool
    num_steps: int
    steps_per_run: int
    log_every: int
    eval_every: int
    eval_batch_size: int
    keep_checkpoints: int
    fallback: bool  # whether a damaged checkpoint gives way to the one before
    stop_on: tuple[str, ...]  # of `health.KINDS`
    train_url: str  # where the run directory is copied when the run ends; "": nowhere

    @property
    def images_per_step(self) -> int:
        """Images that enter the network in a step, each view counted."""
        return self.batch_size * (1 + self.uratio * len(self.method.views))

    def init_state(self) -> TrainState:
        """The state before the first step, on the host."""
        return jax.device_get(jax.jit(self._initialize)(self._key()))

    def _key(self) -> jax.Array:
        return jax.random.PRNGKey(self.seed)

    def _initialize(self, key: jax.Array) -> TrainState:
        return init_state(
            key,
            model=self.model,
            method=self.method,
            optimizer=self.optimizer,
            image_shape=self.dataset.image_shape,
            num_classes=self.dataset.num_classes,
            augment=self.augmentation.init(),
            average_batch_stats=self.ema_batch_stats,
        )

    @functools.cached_property
    def train_step(self) -> Callable[..., Any]:
        """The pure step, for `run`."""
        return make_train_step(
            model=self.model,
            method=self.method,
            optimizer=self.optimizer,
            schedule=self.schedule,
            augmentation=self.augmentation,
            batch_size=self.batch_size,
            uratio=self.uratio,
            num_steps=self.num_steps,
            ema_decay=self.ema_decay,
            average_batch_stats=self.ema_batch_stats,
            replica=parallel.replica(self.devices),
        )

    @functools.cached_property
    def shapes(self) -> dict[str, Any]:
        """Shapes of what a checkpoint holds: the state, and the sums of metrics not yet logged.

        Traces the step, so that sizes that do not fit together raise here; compiles nothing.
        """
        state = jax.eval_shape(self._initialize, self._key())
        data = self._sample_shape() if isinstance(self.dataset, StreamedDataset) else self.data()
        window = parallel.metric_shapes(self.train_step, state, data, self.devices)
        return {"state": state, "window": window}

    def evaluator(self) -> parallel.Evaluate:
        """The compiled exact evaluation."""
        step = make_eval_step(self.model)
        return parallel.make_evaluate(step, self.devices, batch_size=self.eval_batch_size)

    def run(self) -> parallel.Run:
        """The compiled steps; what they read is `feed`."""
        if isinstance(self.dataset, StreamedDataset):
            return parallel.make_streamed_run(self.train_step, self.devices)
        return parallel.make_run(self.train_step, self.devices)

    def feed(self, step: int) -> AbstractContextManager[parallel.Feed]:
        """What `run` reads from `step` on, on the devices."""
        if not isinstance(self.dataset, StreamedDataset):
            return nullcontext(parallel.replicate(self.data(), self.devices))
        samples = imagenet.samples(
            self.dataset,
            self.split,
            seed=self.seed,
            start=step,
            stop=self.num_steps,
            sizes=self._sizes(),
            rows=(
                parallel.own_rows(self._sizes()[0], self.devices),
                parallel.own_rows(self._sizes()[1], self.devices),
            ),
        )
        return parallel.Stream(samples, self.devices)

    def _sizes(self) -> tuple[int, int]:
        """Labelled and unlabelled images that a step reads."""
        return self.batch_size, self.batch_size * self.uratio if self.method.views else 0

    def _sample_shape(self) -> Sample:
        """What each device reads in a step of a stream."""
        labeled, unlabeled = (
            (
                jax.ShapeDtypeStruct((size, *self.dataset.image_shape), np.uint8),
                jax.ShapeDtypeStruct((size,), np.int32),
            )
            if (size := total // len(self.devices))
            else (None, None)
            for total in self._sizes()
        )
        return Sample(*labeled, *unlabeled)

    def data(self) -> Data:
        """What the step reads of a data set in memory, on the host."""
        assert isinstance(self.dataset, Dataset)
        labels = self.dataset.labels.astype(np.int32)
        return Data(
            images=self.dataset.images,
            labeled=self.split.labeled.astype(np.int32),
            labels=labels[self.split.labeled],
            unlabeled=self.split.unlabeled.astype(np.int32),
            hidden=labels[self.split.unlabeled],
        )


# Knob -> (smallest value, largest value or None); `above` marks an open lower end.
_RANGES: dict[str, tuple[float, float | None, str]] = {
    "image_size": (0, None, "from"),
    "seed": (0, 2**32 - 1, "from"),
    "batch_size": (1, None, "from"),
    "uratio": (1, None, "from"),
    "per_worker_batch_size": (0, None, "from"),
    "num_steps": (1, None, "from"),
    "num_epochs": (0, None, "from"),
    "steps_per_run": (1, None, "from"),
    "log_every": (1, None, "from"),
    "eval_every": (1, None, "from"),
    "eval_batch_size": (1, None, "from"),
    "keep_checkpoints": (0, None, "from"),
    "cpu_devices": (0, None, "from"),
    "ema_decay": (0, 1, "from"),
    "optimizer.lr": (0, None, "above"),
    "optimizer.lr_batch_size": (0, None, "from"),
    "optimizer.momentum": (0, 1, "from"),
    "optimizer.weight_decay": (0, None, "from"),
}


def build(
    config: ml_collections.ConfigDict,
    *,
    recorded: Callable[[], int | None] = lambda: None,
    max_devices: int | None = None,
) -> Recipe:
    """Builds every part that `config` names, for all devices or the first `max_devices`.

    Args:
      recorded: the batch size of the run that is resumed, None: a new one. What a run is must not
        depend on the machine that resumes it, as `per_worker_batch_size` does.

    Raises:
      UsageError: a knob is unknown, missing or out of range, or the parts do not fit together.
    """
    try:
        return _build(config, recorded, max_devices)
    except AttributeError as error:
        if isinstance(error.obj, ml_collections.ConfigDict):
            knob = " ".join(str(error).split())
            raise UsageError(f"the config has no {knob}; configs/base.py has all knobs") from error
        raise


def build_seeds(
    config: ml_collections.ConfigDict, *, recorded: Callable[[], int | None] = lambda: None
) -> list[Recipe]:
    """The recipes of `config.num_seeds` runs, which share images, sizes and one device.

    Each is the recipe of the run alone: `config.seed` counts up, and so does the labelled set in
    the data set's name, unless `config.split_file` decides it.

    Args:
      recorded: as for `build`, of a single seed.

    Raises:
      UsageError: as `build`; or there are several, of a stream, of splits of different sizes, or
        for several processes.
    """
    require_range(config, "num_seeds", 1, None, "from")
    configs = [_of_seed(config, i) for i in range(config.num_seeds)]
    if len(configs) == 1:
        return [build(configs[0], recorded=recorded)]
    recipes = [build(one, max_devices=1) for one in configs]
    first, given = recipes[0], f"config.num_seeds is {len(recipes)}"
    if not hosts.is_alone():
        raise UsageError(f"{given}; allowed for several processes: 1")
    if first.train_url:
        raise UsageError(f"{given}; allowed with config.stage.train_url: 1")
    if not isinstance(first.dataset, Dataset):
        raise UsageError(f"{given}; allowed for streams: 1")
    if len({tuple(len(part) for part in recipe.split) for recipe in recipes}) > 1:
        raise UsageError(f"{given}, whose splits differ in size; allowed for these data: 1")
    return [dataclasses.replace(recipe, dataset=first.dataset) for recipe in recipes]


def _of_seed(config: ml_collections.ConfigDict, i: int) -> ml_collections.ConfigDict:
    """The config of the i-th of several seeds."""
    own = config.copy_and_resolve_references()
    own.num_seeds = 1
    own.seed += i
    if not config.split_file:
        own.dataset = re.sub(r"\.(\d+)@", lambda m: f".{int(m[1]) + i}@", config.dataset)
    return own


def _build(
    config: ml_collections.ConfigDict,
    recorded: Callable[[], int | None],
    max_devices: int | None,
) -> Recipe:
    for knob, (low, high, kind) in _RANGES.items():
        require_range(config, knob, low, high, kind)
    for kind in config.health.stop_on:
        if kind not in health.KINDS:
            raise UsageError(
                f"config.health.stop_on names {kind!r}; allowed: {', '.join(health.KINDS)}"
            )
    parallel.cache_programs(config.compilation_cache)
    parallel.split_cpu(max_devices or config.cpu_devices or _cpu_devices(config))
    hosts.start(**config.distributed)
    devices = jax.devices()[:max_devices]
    parallel.require_even(devices)
    if devices[0].platform == "cpu" and not config.cpu_devices:
        _note_cores(config, len(devices))
    config = config.copy_and_resolve_references()
    # What a run is, and whoever reads it, has nothing to do with who trains it.
    config.distributed.update(coordinator="", num_processes=0, process_id=0)
    if config.per_worker_batch_size:
        begun = hosts.from_first(recorded)
        config.batch_size = begun or config.per_worker_batch_size * len(devices)
        config.per_worker_batch_size = 0
    for knob, size in (
        ("batch_size", config.batch_size),
        ("batch_size · uratio", config.batch_size * config.uratio),
    ):
        if size % len(devices):
            raise UsageError(
                f"config.{knob} is {size}; allowed: a multiple of the {len(devices)} devices"
            )
    dataset, split = load_data(config)
    methods = modules_of(ssljax.methods, without="method")
    method = call(find("config.method", config.method, methods), config, "method_args")
    if method.views and not len(split.unlabeled):
        raise UsageError(
            f"config.dataset {config.dataset} leaves no unlabelled images, which config.method "
            f"{config.method} needs"
        )
    steps_per_epoch = len(split.labeled) / config.batch_size
    if config.num_epochs:
        config.num_steps = math.ceil(steps_per_epoch * config.num_epochs)
    schedule, optimizer = _optimizer(config, steps_per_epoch)
    model = lookup.model(
        config,
        num_classes=dataset.num_classes,
        dtype=jax.numpy.bfloat16 if config.bfloat16 else np.float32,
        axis_name=parallel.AXIS if config.sync_bn else None,
    )
    resident, platform = isinstance(dataset, Dataset), devices[0].platform
    recipe = Recipe(
        config=config.to_dict(),
        dataset=dataset,
        split=split,
        model=model,
        method=method,
        optimizer=optimizer,
        schedule=schedule,
        augmentation=_augmentation(config.augment),
        devices=devices,
        seed=config.seed,
        batch_size=config.batch_size,
        uratio=config.uratio,
        ema_decay=config.ema_decay,
        ema_batch_stats=config.ema_batch_stats,
        num_steps=config.num_steps,
        # A step on CPU is long, and signals are looked at between calls. Steps that read a stream
        # are called one by one.
        steps_per_run=config.steps_per_run if resident and platform != "cpu" else 1,
        log_every=config.log_every,
        eval_every=config.eval_every,
        eval_batch_size=config.eval_batch_size,
        keep_checkpoints=config.keep_checkpoints,
        fallback=config.checkpoint.fallback,
        stop_on=tuple(config.health.stop_on),
        train_url=config.stage.train_url,
    )
    if resident:
        parallel.require_memory(recipe.data(), devices)
    with naming("config"):  # sizes that do not fit together show while the step is traced
        _ = recipe.shapes
    return recipe


def _cpu_devices(config: ml_collections.ConfigDict) -> int:
    """For `config.cpu_devices` 0: what is computed must not depend on the number of cores."""
    if (
        config.per_worker_batch_size
        or not config.sync_bn
        or hosts.are_several(**config.distributed)
    ):
        return 1
    return parallel.devices_for(config.batch_size)


def _note_cores(config: ml_collections.ConfigDict, devices: int) -> None:
    cores = parallel.cores()
    if config.batch_size % cores and config.sync_bn:
        print(
            f"note: {devices} of {cores} cores are devices, since config.batch_size is "
            f"{config.batch_size}; a multiple of {cores} uses all"
        )


def load_data(config: ml_collections.ConfigDict) -> tuple[Dataset | StreamedDataset, Split]:
    """The data of a recipe alone.

    Raises:
      UsageError: it cannot be read or split as `config` says.
    """
    require_choice(config, "unlabeled", CONVENTIONS)
    require_range(config, "image_size", *_RANGES["image_size"])
    if config.stage.data_url:
        if not config.data_dir or stage.is_remote(config.data_dir):
            raise UsageError(
                f"config.data_dir is {config.data_dir!r}; allowed with config.stage.data_url: the "
                "local directory that it is copied to"
            )
        copy_to = Path(config.data_dir).expanduser()
        stage.copy_in(config.stage.data_url, copy_to, "config.stage.data_url")
    with naming("config.dataset"):
        return load(
            config.dataset,
            unlabeled=config.unlabeled,
            data_dir=config.data_dir,
            image_size=config.image_size,
            path=config.split_file,
            stream=config.stream,
        )


def _optimizer(
    config: ml_collections.ConfigDict, steps_per_epoch: float
) -> tuple[optax.Schedule, optax.GradientTransformation]:
    with naming("config.optimizer"):
        knobs = config.optimizer
        schedule = optim.make_schedule(
            knobs.schedule,
            lr=knobs.lr * (config.batch_size / knobs.lr_batch_size if knobs.lr_batch_size else 1),
            steps=config.num_steps,
            steps_per_epoch=steps_per_epoch,
            warmup_epochs=knobs.warmup_epochs,
            decay_epochs=knobs.decay_epochs,
        )
        return schedule, optim.make_optimizer(
            knobs.name, schedule, weight_decay=knobs.weight_decay, momentum=knobs.momentum
        )


def _augmentation(knobs: Any) -> Augmentation:
    """`knobs.strong` is given those of its own arguments that are among the knobs."""
    weak = find("config.augment.weak", knobs.weak, [policies])
    name = "type" if "type" in knobs else "strong"  # of the recipes for ImageNet, as published
    strong = find(f"config.augment.{name}", knobs.strong, [augmentation])
    given = {arg: knobs[arg] for arg in inspect.signature(strong).parameters if arg in knobs}
    with naming("config.augment"):
        return strong(**given | {"weak": weak})


def describe(recipe: Recipe) -> str:
    """What will be trained, on what, in three lines."""
    data, split = recipe.dataset, recipe.split
    height, width, channels = data.image_shape
    where = "data: read from storage step by step, as uint8 images"
    if isinstance(data, Dataset):
        size = memory.describe(parallel.require_memory(recipe.data(), recipe.devices))
        where = f"data on each device: {size} of uint8 images and indices"
    weights = sum(x.size for x in jax.tree.leaves(recipe.shapes["state"].params))
    return (
        f"{recipe.config['dataset']}: {len(split.labeled)} labelled, {len(split.unlabeled)} "
        f"unlabelled, {len(split.valid)} validation, {len(data.test_labels)} test images of "
        f"{height}×{width}×{channels}\n"
        f"{where}\n"
        f"{recipe.config['method']}: {recipe.config['model']} with {weights:,} weights, "
        f"{recipe.num_steps} steps of {recipe.images_per_step} images on {len(recipe.devices)} "
        f"{recipe.devices[0].platform} device(s)"
    )
