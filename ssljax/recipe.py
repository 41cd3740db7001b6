"""A config -> the parts of a run. The only file of the package that reads a config object.

Everything that can be wrong with a config is found here, before anything is compiled or written.
"""

import dataclasses
import functools
import inspect
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import flax.linen as nn
import jax
import ml_collections
import numpy as np
import optax

import ssljax.methods
import ssljax.models
from ssljax.augment import augmentation, policies
from ssljax.augment.augmentation import Augmentation
from ssljax.data import memory
from ssljax.data.datasets import Dataset
from ssljax.data.load import CONVENTIONS, load
from ssljax.data.splits import Split
from ssljax.errors import UsageError
from ssljax.lookup import find, modules_of
from ssljax.methods.method import Method
from ssljax.training import optim, parallel
from ssljax.training.state import TrainState, init_state
from ssljax.training.step import Data, make_eval_step, make_train_step


@dataclasses.dataclass(frozen=True)
class Recipe:
    """The parts of a run. Sizes count images over all devices, lengths count steps."""

    config: dict[str, Any]  # what `config.json` records
    dataset: Dataset
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
    num_steps: int
    steps_per_run: int
    log_every: int
    eval_every: int
    eval_batch_size: int
    keep_checkpoints: int

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
            image_shape=self.dataset.images.shape[1:],
            num_classes=self.dataset.num_classes,
            augment=self.augmentation.init(),
        )

    @functools.cached_property
    def train_step(self) -> Callable[..., Any]:
        """The pure step, for `parallel.make_run` on `devices`."""
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
            replica=parallel.replica(self.devices),
        )

    def shapes(self) -> dict[str, Any]:
        """Shapes of what a checkpoint holds: the state, and the sums of metrics not yet logged.

        Traces the step, so that sizes that do not fit together raise here; compiles nothing.
        """
        state = jax.eval_shape(self._initialize, self._key())
        window = parallel.metric_shapes(self.train_step, state, self.data(), self.devices)
        return {"state": state, "window": window}

    def evaluator(self) -> parallel.Evaluate:
        """The compiled exact evaluation."""
        step = make_eval_step(self.model)
        return parallel.make_evaluate(step, self.devices, batch_size=self.eval_batch_size)

    def data(self) -> Data:
        """What the step reads, on the host."""
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
    "num_steps": (1, None, "from"),
    "steps_per_run": (1, None, "from"),
    "log_every": (1, None, "from"),
    "eval_every": (1, None, "from"),
    "eval_batch_size": (1, None, "from"),
    "keep_checkpoints": (0, None, "from"),
    "cpu_devices": (1, None, "from"),
    "ema_decay": (0, 1, "from"),
    "optimizer.lr": (0, None, "above"),
    "optimizer.momentum": (0, 1, "from"),
    "optimizer.weight_decay": (0, None, "from"),
}


def build(config: ml_collections.ConfigDict) -> Recipe:
    """Builds every part that `config` names.

    Raises:
      UsageError: a knob is unknown, missing or out of range, or the parts do not fit together.
    """
    try:
        return _build(config)
    except AttributeError as error:
        if isinstance(error.obj, ml_collections.ConfigDict):
            knob = " ".join(str(error).split())
            raise UsageError(f"the config has no {knob}; configs/base.py has all knobs") from error
        raise


def _build(config: ml_collections.ConfigDict) -> Recipe:
    for knob, (low, high, kind) in _RANGES.items():
        _check_range(config, knob, low, high, kind)
    parallel.split_cpu(config.cpu_devices)
    devices = jax.devices()
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
    method = _call(find("config.method", config.method, methods), config, "method_args")
    if method.views and not len(split.unlabeled):
        raise UsageError(
            f"config.dataset {config.dataset} leaves no unlabelled images, which config.method "
            f"{config.method} needs"
        )
    with _named("config.optimizer"):
        knobs = config.optimizer
        schedule = optim.make_schedule(knobs.schedule, lr=knobs.lr, steps=config.num_steps)
        optimizer = optim.make_optimizer(
            knobs.name, schedule, weight_decay=knobs.weight_decay, momentum=knobs.momentum
        )
    model = _call(
        find("config.model", config.model, modules_of(ssljax.models, without="layers")),
        config,
        "model_args",
        num_classes=dataset.num_classes,
        dtype=jax.numpy.bfloat16 if config.bfloat16 else np.float32,
        axis_name=parallel.AXIS if config.sync_bn else None,
    )
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
        num_steps=config.num_steps,
        # A step on CPU is long, and signals are looked at between calls.
        steps_per_run=1 if devices[0].platform == "cpu" else config.steps_per_run,
        log_every=config.log_every,
        eval_every=config.eval_every,
        eval_batch_size=config.eval_batch_size,
        keep_checkpoints=config.keep_checkpoints,
    )
    parallel.require_memory(recipe.data(), devices)
    with _named("config"):  # sizes that do not fit together show while the step is traced
        recipe.shapes()
    return recipe


def load_data(config: ml_collections.ConfigDict) -> tuple[Dataset, Split]:
    """The data of a recipe alone.

    Raises:
      UsageError: it cannot be read or split as `config` says.
    """
    _choice(config, "unlabeled", dict.fromkeys(CONVENTIONS))
    _check_range(config, "image_size", *_RANGES["image_size"])
    with _named("config.dataset"):
        return load(
            config.dataset,
            unlabeled=config.unlabeled,
            data_dir=config.data_dir,
            image_size=config.image_size,
            path=config.split_file,
        )


def _augmentation(knobs: Any) -> Augmentation:
    weak = find("config.augment.weak", knobs.weak, [policies])
    strong = find("config.augment.strong", knobs.strong, [augmentation])
    with _named("config.augment"):
        return strong(weak, knobs.recipe)


def describe(recipe: Recipe) -> str:
    """What will be trained, on what, in three lines."""
    data, split = recipe.dataset, recipe.split
    height, width, channels = data.images.shape[1:]
    size = parallel.require_memory(recipe.data(), recipe.devices)
    weights = sum(x.size for x in jax.tree.leaves(recipe.shapes()["state"].params))
    return (
        f"{recipe.config['dataset']}: {len(split.labeled)} labelled, {len(split.unlabeled)} "
        f"unlabelled, {len(split.valid)} validation, {len(data.test_labels)} test images of "
        f"{height}×{width}×{channels}\n"
        f"data on each device: {memory.describe(size)} of uint8 images and indices\n"
        f"{recipe.config['method']}: {recipe.config['model']} with {weights:,} weights, "
        f"{recipe.num_steps} steps of {recipe.images_per_step} images on {len(recipe.devices)} "
        f"{recipe.devices[0].platform} device(s)"
    )


def _check_range(config: Any, name: str, low: float, high: float | None, kind: str) -> None:
    value = config
    for key in name.split("."):
        value = getattr(value, key)
    below = value < low or (kind == "above" and value == low)
    if not math.isfinite(value) or below or (high is not None and value > high):
        allowed = f"{kind} {low}" + (" up" if high is None else f" to {high}")
        raise UsageError(f"config.{name} is {value}; allowed: {allowed}")


def _choice(config: Any, name: str, choices: Mapping[str, Any]) -> Any:
    value = getattr(config, name)
    if value not in choices:
        raise UsageError(f"config.{name} is {value!r}; allowed: {', '.join(choices)}")
    return choices[value]


@contextmanager
def _named(field: str) -> Iterator[None]:
    """Turns what plain functions raise about their arguments into an error that names the field."""
    try:
        yield
    except UsageError:
        raise
    except (TypeError, ValueError) as error:
        raise UsageError(f"{field}: {error}") from error


def _call(function: Callable[..., Any], config: Any, args: str, **fixed: Any) -> Any:
    """Calls `function` with the keyword arguments of `config[args]`, checked by name first."""
    given = config[args].to_dict()
    valid = [name for name in inspect.signature(function).parameters if name not in fixed]
    for name in given:
        if name not in valid:
            raise UsageError(
                f"config.{args}.{name} does not exist; allowed: {', '.join(valid) or 'none'}"
            )
    with _named(f"config.{args}"):
        return function(**given, **fixed)
