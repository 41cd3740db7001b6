"""Methods that train in generations (`methods.method.Generations`): a chain of ordinary runs.

`<workdir>/generation=<g>` is the run directory of a generation, or holds `run=<i>`, one for each of
its runs. The averaged models of one generation predict the unlabelled images for the next one. If
the method picks images, `<workdir>/generation=<g>.json` is the `split.json` that generation g
trains on. If it makes targets for all images, `generation=<g>.npz` has these. A chain that was
stopped goes on with what is there.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import ml_collections
import numpy as np

from ssljax import recipe, trained
from ssljax.data import arrays, split_file, splits
from ssljax.data.datasets import Dataset
from ssljax.errors import UsageError
from ssljax.experiment import Experiment
from ssljax.log import LOG
from ssljax.run import directory, loop, resume
from ssljax.storage import lock, remote
from ssljax.storage.files import replacing, write_json
from ssljax.training import hosts

_SHOWN = 20  # classes whose new labels are logged one by one


class Trained(NamedTuple):
    """The result of training."""

    experiment: Experiment  # of the last generation
    workdir: Path  # its run directory
    results: dict[str, Any]  # what its `results.json` holds


def train(experiment: Experiment, workdir: str) -> Trained:
    """Trains an experiment, or what is left of it; if its method has generations, all of them.

    Args:
      workdir: a path, or a URL.

    Raises:
      UsageError: as `loop.train`; or the method has generations, and the images are a stream, the
        workdir is a URL, or there are several processes.
      RunError, Interrupted: as `loop.train`.
    """
    local = remote.local(workdir)
    if experiment.method.generations is None:
        home = workdir if remote.is_remote(workdir) else ""
        return Trained(experiment, local, loop.train(experiment, local, home=home))
    _require_possible(experiment, workdir)
    resume.require_no_run(local)
    refusal = f"workdir {local} is in use: another process trains generations there"
    with lock.held_directory(local.resolve(), refusal):
        return _train_generations(experiment, local)


def _train_generations(first: Experiment, root: Path) -> Trained:
    generations = first.method.generations
    assert generations is not None
    previous: list[Trained] = []
    for number in range(generations.number):
        given, guessed = (root / f"generation={number}.{end}" for end in ("json", "npz"))
        if previous and generations.pick and not given.exists():
            write_json(given, _grown(first, previous[0].workdir, generations.pick))
        if previous and generations.targets and not guessed.exists():
            _write_targets(first, [run.workdir for run in previous], guessed, generations.targets)
        home = root / f"generation={number}"
        runs = [home]
        if generations.runs > 1 and number < generations.number - 1:
            runs = [home / f"run={i}" for i in range(generations.runs)]
        previous = []
        for i, run in enumerate(runs):
            experiment = first
            if number or i:
                experiment = _later(first, number, i, run, given, guessed)
            LOG.info(
                "generation %d of %d%s: %d labelled images", number + 1, generations.number,
                f", run {i + 1} of {len(runs)}" if len(runs) > 1 else "",
                len(experiment.split.labeled),
            )  # fmt: skip
            previous.append(Trained(experiment, run, loop.train(experiment, run)))
    return previous[-1]


def _require_possible(first: Experiment, workdir: str) -> None:
    given = f"config.method {first.config['method']!r} trains in generations"
    if not hosts.is_single_process():
        raise UsageError(f"{given}; allowed for several processes: another method")
    if remote.is_remote(workdir) or first.train_url:
        raise UsageError(f"{given}; allowed with --workdir: a path, and no config.stage.train_url")
    if not isinstance(first.dataset, Dataset):
        raise UsageError(f"{given}, whose images are in memory; allowed for streams: another one")
    if first.config["method_args"].get("generation", 0):
        raise UsageError("config.method_args.generation is set while training; allowed: 0")


def _later(
    first: Experiment, number: int, seeds: int, run: Path, given: Path, guessed: Path
) -> Experiment:
    """The experiment of a later generation or run.

    Args:
      seeds: what is added to the seed of the first one.
      run: its directory. If this has a checkpoint, `config.init_from` is not read again.
      given: file of the split that it trains on; if there is none, it is the first one's.
      guessed: file of the targets, if there are any.
    """
    assert isinstance(first.dataset, Dataset)
    config = ml_collections.ConfigDict(first.config)
    config.seed += seeds
    dataset, split = first.dataset, first.split
    generations = first.method.generations
    if number:
        config.method_args.generation = number
    if number and generations and generations.pick:
        config.method_args.class_prior = tuple(float(count) for count in first.class_counts)
    if given.exists():
        config.split_file, config.labels_per_class = str(given), "natural"
        split, added = split_file.read(given, dataset.labels, dataset.class_names, dataset.names())
        dataset = dataset.with_labels({**dataset.added_labels, **added})
    experiment = recipe.build(
        config, data=(dataset, split), batch_size=first.batch_size,
        started=directory.begun(run).started,
    )  # fmt: skip
    if guessed.exists():
        guesses = arrays.read(guessed, ["targets"])["targets"]
        experiment = dataclasses.replace(experiment, guesses=guesses)
    return experiment


def _write_targets(
    first: Experiment, runs: list[Path], path: Path, make: Callable[[np.ndarray], np.ndarray]
) -> None:
    """Writes targets `[unlabeled, C]` for the next generation, in the split's order.

    The target of an image that is labelled too is its label.

    Args:
      runs: finished run directories of the generation before.
      make: `Generations.targets`.
    """
    assert isinstance(first.dataset, Dataset)
    images, split = first.dataset.images, first.split
    models = (trained.load(run, model=first.config["model"]) for run in runs)
    found = make(
        np.stack([first.probabilities(model, images[split.unlabeled]) for model in models])
    )
    labeled = np.isin(split.unlabeled, split.labeled)
    labels = first.dataset.labels[split.unlabeled[labeled]]
    found[labeled] = np.eye(first.dataset.num_classes, dtype=found.dtype)[labels]
    used = int(np.sum(found.sum(axis=-1) > 0))
    LOG.info("targets for the next generation: of %d of %d unlabelled images", used, len(found))
    with replacing(path) as file:
        np.savez(file, targets=found.astype(np.float32))


def _grown(
    first: Experiment, run: Path, pick: Callable[[np.ndarray, np.ndarray], np.ndarray]
) -> dict[str, Any]:
    """A `split.json`: the first labelled images, and those that a finished run gives a label."""
    assert isinstance(first.dataset, Dataset)
    split = first.split
    pool = np.setdiff1d(split.unlabeled, np.union1d(split.labeled, split.valid))
    model = trained.load(run, model=first.config["model"])
    picked = pick(first.probabilities(model, first.dataset.images[pool]), first.class_counts)
    images, labels = pool[picked >= 0], picked[picked >= 0]
    names = first.dataset.class_names
    new = np.bincount(labels, minlength=len(names))
    shown = ", ".join(f"{name}: {n}" for name, n in zip(names, new, strict=True))
    LOG.info("labels for the next generation: %s", shown if len(names) <= _SHOWN else new.sum())
    grown = split._replace(labeled=np.concatenate([split.labeled, images]))
    added = {int(image): names[label] for image, label in zip(images, labels, strict=True)}
    added = {**first.dataset.added_labels, **added}
    counts = first.class_counts + new
    parent = splits.fingerprint(split)
    return split_file.record(grown, added, parent, class_counts=counts, names=first.dataset.names())
