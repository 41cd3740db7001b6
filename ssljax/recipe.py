"""A config -> the parts of a run. The only file of the package that reads a config object.

Everything that can be wrong with a config is found here, before anything is compiled or written.
"""

import dataclasses
import functools
import logging
import math
from collections.abc import Sequence

import flax.linen as nn
import jax
import ml_collections

from ssljax import network, on_features, overrides, parts, requirements
from ssljax.checks import check_choice, check_range, missing_knobs, prefix_errors
from ssljax.data import splits
from ssljax.data.datasets import Dataset
from ssljax.data.load import most_evaluated
from ssljax.data.splits import Split
from ssljax.data.streaming import StreamedDataset
from ssljax.errors import UsageError
from ssljax.experiment import HEALTH_KINDS, Experiment
from ssljax.network import make_model, require_outputs, training_dtype
from ssljax.training import devices, hosts, parallel, pretrained
from ssljax.training import join as joining

_LOG = logging.getLogger("ssljax")
_MOST_STEPS = 2**31 - 1  # that a state of training counts
# `config.distributed` of what is recorded.
_ALONE = {"coordinator": "", "num_processes": 0, "process_id": 0}
# Knob -> (smallest value, largest value, whether the smallest one is refused).
_RANGES: dict[str, tuple[float, float, bool]] = {
    "image_size": (0, math.inf, False),
    "seed": (0, 2**32 - 1, False),
    "num_seeds": (1, 1000, False),
    "batch_size": (1, math.inf, False),
    "uratio": (1, math.inf, False),
    "per_worker_batch_size": (0, math.inf, False),
    "microbatches": (1, 1 << 20, False),
    "num_steps": (1, _MOST_STEPS, False),
    "num_epochs": (0, math.inf, False),
    "steps_per_run": (1, math.inf, False),
    "log_every": (1, math.inf, False),
    "eval_every": (1, math.inf, False),
    "eval_batch_size": (1, math.inf, False),
    "keep_checkpoints": (0, math.inf, False),
    "cpu_devices": (0, 4096, False),
    "ema_decay": (0, 1, False),
    "logit_adjustment": (0, math.inf, False),
    "optimizer.lr": (0, math.inf, True),
    "optimizer.lr_batch_size": (0, math.inf, False),
    "optimizer.momentum": (0, 1, False),
    "optimizer.weight_decay": (0, math.inf, False),
    "optimizer.clip_norm": (0, math.inf, False),
    "optimizer.layer_decay": (0, 1, True),
    "optimizer.warmup_steps": (0, math.inf, False),
}


def prepare(config: ml_collections.ConfigDict, *, join: bool = True) -> None:
    """Sets up this process for a run: compiled programs, CPU devices, the other processes.

    For programs that do nothing else, before JAX starts its backend. `build` works without it, on
    the devices that are there.

    Args:
      join: whether the other processes of the run are waited for; only training has any.

    Raises:
      UsageError: a knob is out of range.
      RunError: the other processes of the run do not come.
    """
    with missing_knobs():
        _check_ranges(config)
        devices.cache_programs(config.compilation_cache)
        several = join and joining.are_several(**config.distributed)
        devices.split_cpu(config.cpu_devices or _cpu_devices(config, several=several))
        if join:
            joining.start(**config.distributed)
        platform = network.available()[0].platform
        if platform == "cpu" and config.num_seeds == 1:
            _note_cores(config)


def build(
    config: ml_collections.ConfigDict,
    *,
    data: tuple[Dataset, Split] | None = None,
    batch_size: int | None = None,
    started: bool = False,
    max_devices: int | None = None,
    on: Sequence[jax.Device] | None = None,
    once: bool = True,
) -> Experiment:
    """Builds every part that `config` names, for all devices or the first `max_devices`.

    Args:
      data: used in place of what `config.dataset` names; None: that is read.
      batch_size: of the run that is resumed, None: a new one. What a run is must not depend on the
        machine that resumes it, as `per_worker_batch_size` does.
      started: whether the run has a checkpoint, so that `config.init_from` is not read.
      on: the devices, which need not be there; None: those that JAX finds.
      once: whether features can be computed once, see `on_features.py`.

    Raises:
      UsageError: a knob is unknown, missing or out of range, or the parts do not fit together.
    """
    with missing_knobs():
        _check_ranges(config)
        run_devices = list(on) if on is not None else network.available()[:max_devices]
        return _build(config, data, batch_size, started, run_devices, once)


def build_seeds(
    config: ml_collections.ConfigDict, *, batch_size: int | None = None, started: bool = False
) -> list[Experiment]:
    """The experiments of `config.num_seeds` runs, which share images, sizes and one device.

    Each is the experiment of the run alone: `config.seed` counts up, and so does the labelled set
    in the data set's name, unless `config.split_file` decides it.

    Args:
      batch_size: as for `build`, of a single seed.
      started: as for `build`, of all seeds.

    Raises:
      UsageError: as `build`; or there are several, of a stream, of splits of different sizes, or
        for several processes.
    """
    with missing_knobs():
        _check_ranges(config)
    configs = [_of_seed(config, i) for i in range(config.num_seeds)]
    if len(configs) == 1:
        return [build(configs[0], batch_size=batch_size, started=started)]
    experiments = [build(one, started=started, max_devices=1, once=False) for one in configs]
    first, given = experiments[0], f"config.num_seeds is {len(experiments)}"
    if not hosts.is_single_process():
        raise UsageError(f"{given}; allowed for several processes: 1")
    if first.train_url:
        raise UsageError(f"{given}; allowed with config.stage.train_url: 1")
    if not isinstance(first.dataset, Dataset):
        raise UsageError(f"{given}; allowed for streams: 1")
    if first.method.generations:
        raise UsageError(f"{given}; allowed for config.method {first.config['method']!r}: 1")
    if len({tuple(len(part) for part in each.split) for each in experiments}) > 1:
        raise UsageError(f"{given}, whose splits differ in size; allowed for these data: 1")
    if first.logit_adjustment and len({tuple(each.class_counts) for each in experiments}) > 1:
        raise UsageError(
            f"{given}, whose labelled images differ in how many are of each class; allowed with "
            "config.logit_adjustment: 1"
        )
    devices.require_step(
        first.step_bytes * len(experiments), first.data_bytes, first.batch_size, first.devices
    )
    return [dataclasses.replace(each, dataset=first.dataset) for each in experiments]


def _of_seed(config: ml_collections.ConfigDict, i: int) -> ml_collections.ConfigDict:
    """The config of the i-th of several seeds."""
    single = config.copy_and_resolve_references()
    single.num_seeds = 1
    single.seed += i
    if not config.split_file:
        single.dataset = splits.with_later_seed(config.dataset, i)
    return single


def _check_ranges(config: ml_collections.ConfigDict) -> None:
    overrides.check_kinds(config)
    with prefix_errors(""):
        for knob, (low, high, open_low) in _RANGES.items():
            value = functools.reduce(getattr, knob.split("."), config)
            check_range(f"config.{knob}", value, low, high, open_low=open_low)
        for kind in config.health.stop_on:
            check_choice("config.health.stop_on", kind, HEALTH_KINDS)


def _build(
    config: ml_collections.ConfigDict,
    data: tuple[Dataset | StreamedDataset, Split] | None,
    resumed_batch_size: int | None,
    started: bool,
    run_devices: list[jax.Device],
    once: bool,
) -> Experiment:
    devices.require_even(run_devices)
    config = config.copy_and_resolve_references()
    overrides.choose_arguments(config)
    # The recorded run does not depend on the processes that train it.
    config.distributed = ml_collections.ConfigDict(_ALONE)
    _set_batch_size(config, len(run_devices), resumed_batch_size)
    reads = config.init_from and not started
    weights = pretrained.read(config.init_from, config.init_from_sha256) if reads else None
    if weights:
        config.init_from_sha256 = weights.sha256
    dataset, split = data or parts.load_data(config)
    method = parts.make_method(config, split)
    steps_per_epoch = len(split.labeled) / config.batch_size
    _set_num_steps(config, steps_per_epoch)
    model = _network(config, dataset)
    schedule, optimizer = parts.make_optimizer(config, steps_per_epoch, model)
    resident, platform = isinstance(dataset, Dataset), run_devices[0].platform
    augmentation = parts.make_augmentation(config.augment, method, dataset.image_shape)
    given = config.trainable, config.feature_cache, dataset, method, augmentation
    experiment = (on_features.kind(*given) if once else Experiment)(
        config=config.to_dict(),
        dataset=dataset,
        split=split,
        model=model,
        method=method,
        optimizer=optimizer,
        schedule=schedule,
        augmentation=augmentation,
        trainable=parts.make_trainable(config, model),
        devices=run_devices,
        seed=config.seed,
        batch_size=config.batch_size,
        uratio=config.uratio,
        microbatches=config.microbatches,
        ema_decay=config.ema_decay,
        ema_batch_stats=config.ema_batch_stats,
        logit_adjustment=config.logit_adjustment,
        num_steps=config.num_steps,
        # A step on CPU is long, and signals are looked at between calls. Steps that read a stream
        # are called one by one.
        steps_per_run=config.steps_per_run if resident and platform != "cpu" else 1,
        log_every=config.log_every,
        eval_every=config.eval_every,
        eval_batch_size=min(config.eval_batch_size, most_evaluated(dataset, split)),
        keep_checkpoints=config.keep_checkpoints,
        fallback=config.checkpoint.fallback,
        stop_on=tuple(config.health.stop_on),
        train_url=config.stage.train_url,
        start=weights
        and pretrained.fitted(weights, model, config.model, image_shape=dataset.image_shape),
    )
    requirements.require_trainable(experiment)
    return experiment


def _set_num_steps(config: ml_collections.ConfigDict, steps_per_epoch: float) -> None:
    """Works out the length of a run that says it in epochs."""
    if config.num_epochs:
        steps = steps_per_epoch * config.num_epochs
        with prefix_errors(f"config.num_epochs is {config.num_epochs}"):
            check_range("num_steps", steps, 0, _MOST_STEPS)
        config.num_steps = math.ceil(steps)


def _network(config: ml_collections.ConfigDict, dataset: Dataset | StreamedDataset) -> nn.Module:
    model = make_model(
        config,
        num_classes=dataset.num_classes,
        dtype=training_dtype(config),
        axis_name=parallel.AXIS if config.sync_bn else None,
        **({"remat": True} if config.remat else {}),
    )
    if "." in config.model:
        require_outputs(
            model, config.model, image_shape=dataset.image_shape, num_classes=dataset.num_classes
        )
    return parts.tuned(config, model)


def _set_batch_size(config: ml_collections.ConfigDict, devices: int, resumed: int | None) -> None:
    """Works out the batch size of a run that says it per device, and checks that it divides."""
    if config.per_worker_batch_size:
        fresh = config.per_worker_batch_size * devices
        config.batch_size = resumed or fresh
        config.per_worker_batch_size = 0
    for knob, size in (
        ("batch_size", config.batch_size),
        ("batch_size · uratio", config.batch_size * config.uratio),
    ):
        if size % devices:
            raise UsageError(
                f"config.{knob} is {size}; allowed: a multiple of the {devices} devices"
            )


def _cpu_devices(config: ml_collections.ConfigDict, *, several: bool) -> int:
    """For `config.cpu_devices` 0: what is computed must not depend on the number of cores."""
    if several or config.num_seeds > 1 or config.per_worker_batch_size or not config.sync_bn:
        return 1
    return devices.devices_for(config.batch_size)


def _note_cores(config: ml_collections.ConfigDict) -> None:
    cores, begun = devices.cores(), jax.local_device_count()
    if config.cpu_devices:
        if config.cpu_devices != begun:
            _LOG.info(
                "note: config.cpu_devices is %d, but JAX has started with %d in this process, and "
                "goes on with these; the figures are the same",
                config.cpu_devices, begun,
            )  # fmt: skip
        return
    if config.batch_size % cores and config.sync_bn:
        _LOG.info(
            "note: %d of %d cores are devices, since config.batch_size is %d; a multiple of %d "
            "uses all",
            jax.device_count(), cores, config.batch_size, cores,
        )  # fmt: skip
