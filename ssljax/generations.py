"""Methods that train in generations (`methods.method.Generations`): a chain of ordinary runs.

`<workdir>/generation=<g>` is the run directory of each. Between two of them, the averaged model
predicts the unlabelled images that have no label, the method picks some, and
`<workdir>/generation=<g>.json` is the `split.json` that the next one trains on. Whatever is there
is taken up, so that the chain goes on at any instant.
"""

from pathlib import Path
from typing import Any, NamedTuple

import ml_collections
import numpy as np

from ssljax import recipe, trained
from ssljax.data import split_file, splits
from ssljax.data.datasets import Dataset
from ssljax.errors import UsageError
from ssljax.experiment import Experiment
from ssljax.log import LOG
from ssljax.methods.method import Generations
from ssljax.run import loop, resume
from ssljax.storage import lock, remote
from ssljax.storage.files import write_json
from ssljax.training import hosts

_SHOWN = 20  # classes whose new labels are told one by one


class Trained(NamedTuple):
    """What training leaves."""

    experiment: Experiment  # of the last generation
    workdir: Path  # its run directory
    results: dict[str, Any]  # what its `results.json` holds


def train(experiment: Experiment, workdir: str) -> Trained:
    """Trains an experiment, all its generations if its method has some, or what is left of them.

    Args:
      workdir: a path, or a URL.

    Raises:
      UsageError: as `loop.train`; or generations are to be of a stream, at a URL, or trained by
        several processes.
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
    generations, previous = first.method.generations, None
    assert generations is not None
    for number in range(generations.number):
        run, given = root / f"generation={number}", root / f"generation={number}.json"
        if previous and not given.exists():
            write_json(given, _grown(first, previous.workdir, generations))
        experiment = _later(first, number, given) if previous else first
        LOG.info(
            "generation %d of %d: %d labelled images",
            number + 1, generations.number, len(experiment.split.labeled),
        )  # fmt: skip
        previous = Trained(experiment, run, loop.train(experiment, run))
    assert previous is not None
    return previous


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


def _later(first: Experiment, number: int, given: Path) -> Experiment:
    """The experiment of a later generation, which trains on the split that a file says."""
    assert isinstance(first.dataset, Dataset)
    config = ml_collections.ConfigDict(first.config)
    config.method_args.generation = number
    config.method_args.class_prior = tuple(float(count) for count in first.class_counts)
    config.split_file, config.labels_per_class = str(given), "natural"
    split, added = split_file.read(given, first.dataset.labels, first.dataset.class_names)
    data = first.dataset.with_labels({**first.dataset.added_labels, **added}), split
    return recipe.build(config, data=data, batch_size=first.batch_size)


def _grown(first: Experiment, run: Path, generations: Generations) -> dict[str, Any]:
    """A `split.json`: the first labelled images, and what a finished run gives labels to."""
    assert isinstance(first.dataset, Dataset)
    split = first.split
    pool = np.setdiff1d(split.unlabeled, np.union1d(split.labeled, split.valid))
    model = trained.load(run, model=first.config["model"])
    picked = generations.pick(model.predict_proba(first.dataset.images[pool]), first.class_counts)
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
    return split_file.record(grown, added, parent, class_counts=counts)
