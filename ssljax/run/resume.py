"""Which run a directory holds, and which knobs may change when it goes on. Needs no JAX."""

import itertools
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ssljax.data import splits
from ssljax.errors import UsageError
from ssljax.log import printable
from ssljax.overrides import complete, flatten
from ssljax.storage import runs
from ssljax.storage.files import as_json, read_json

# Knobs that do not change what is computed at any step of the planned run, or only its length.
RESUMABLE = frozenset(
    {
        "checkpoint.fallback",
        "compilation_cache",
        "cpu_devices",
        "data_dir",  # the split and the data are compared
        "eval_batch_size",
        "eval_every",
        "feature_cache",
        "health.stop_on",
        "init_from_sha256",  # `init_from.json` decides, until there is a checkpoint
        "keep_checkpoints",
        "log_every",
        "num_epochs",
        "num_seeds",  # a seed of several is an ordinary run
        "num_steps",
        "split_file",
        "stage.data_url",
        "stage.train_url",
        "steps_per_run",
    }
)


# Knobs that say where this process finds things, and what it is: processes of a run may differ.
OWN = frozenset(
    {
        "compilation_cache",
        "cpu_devices",  # as many on each is asked for elsewhere
        "data_dir",
        "feature_cache",
        "split_file",
        "stage.data_url",
    }
)


def require_same_run(workdir: Path, config: Mapping[str, Any], split_hash: str) -> None:
    """Compares a run directory with an experiment; knobs in `RESUMABLE` may differ.

    A folder or file of images may have moved where `require_same_data` can tell it from another.

    Args:
      split_hash: `splits.fingerprint` of the experiment's split.

    Raises:
      UsageError: they are of different runs; names the first difference.
    """
    recorded = read_json(workdir / "config.json")
    may_move = bool(runs.data_record(workdir)["fingerprint"])
    require_same_recipe(str(workdir), recorded, config, may_move=may_move)
    require_same_split(workdir, split_hash)


def require_same_recipe(
    name: str, recorded: Mapping[str, Any], config: Mapping[str, Any], *, may_move: bool
) -> None:
    """As `require_same_run`, of two recipes alone.

    Args:
      name: of what has recorded the first one.
      may_move: whether a folder or file of images may be elsewhere now.
    """
    before, after = knobs(recorded), knobs(config)
    if may_move:
        before["dataset"], after["dataset"] = (
            splits.without_place(str(x.get("dataset"))) for x in (before, after)
        )
    for key in sorted(before.keys() | after.keys()):
        if key not in RESUMABLE and before.get(key) != after.get(key):
            raise UsageError(
                f"{name} holds a run with config.{key}={before.get(key)!r}, not "
                f"{after.get(key)!r}; use another workdir, or the same value to resume"
            )


def require_same_split(workdir: Path, split_hash: str) -> None:
    """As `require_same_run`, of the split alone."""
    found = read_json(workdir / "split.json").get("hash")
    if found != split_hash:
        raise UsageError(
            f"{workdir} holds a run on another split: its hash is {found}, not {split_hash}"
        )


def knobs(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config as JSON has it, flat and complete, without who trains it."""
    flat = flatten(complete(as_json(config)))
    return {knob: value for knob, value in flat.items() if not knob.startswith("distributed.")}


def require_same_data(name: str, found: Mapping[str, Any], record: Mapping[str, Any]) -> None:
    """Compares the data that were recorded with those that are here.

    Args:
      name: of what has recorded them.
      found: the record, see `data/fingerprint.py`.
      record: that of the data that are here.

    Raises:
      UsageError: they are of other classes, of another size, or other images.
    """
    problem = other_kind(name, found, record) or other_images(name, found, record)
    if problem:
        raise UsageError(problem)


def other_kind(name: str, found: Mapping[str, Any], record: Mapping[str, Any]) -> str:
    """How data differ from a record, as for `require_same_data`, in what a network knows of them;
    "": in nothing."""
    shapes = found["image_shape"], record["image_shape"]
    if shapes[0] != shapes[1]:
        before, after = ("×".join(map(str, shape)) for shape in shapes)
        return f"{name} is of images of {before}; those of config.dataset are {after}"
    classes = found["class_names"], record["class_names"]
    # Systems write é in one of two ways.
    names = ([unicodedata.normalize("NFC", printable(name)) for name in each] for each in classes)
    for number, (before, after) in enumerate(itertools.zip_longest(*names)):
        if before != after:
            return (
                f"{name} knows class {number} as {before!r}, which in config.dataset is "
                f"{after!r}; allowed: the same classes in the same order"
            )
    return ""


def other_images(name: str, found: Mapping[str, Any], record: Mapping[str, Any]) -> str:
    """As `other_kind`, of the images and their labels; older versions have not recorded them."""
    for part, title in (("train", "training"), ("test", "test")):
        before, after = (x.get("fingerprint", {}).get(part) for x in (found, record))
        if before is not None and before != after:
            return (
                f"{name} is of other {title} images or labels than config.dataset has now: their "
                f"fingerprint is {before}, not {after}"
            )
    return ""


def require_not_past(workdir: Path, newest: int, num_steps: int) -> None:
    """A run that is at step `newest` is not made shorter: its rows would be of two runs.

    Raises:
      UsageError: it is further than `num_steps`.
    """
    if newest > num_steps:
        raise UsageError(
            f"workdir {workdir} holds a run that is at step {newest}, and config.num_steps is "
            f"{num_steps}; allowed: from {newest} up, or another workdir"
        )


def require_no_run(workdir: Path) -> None:
    """A directory that is to hold several runs is none itself: a report looks no further there.

    Raises:
      UsageError: it is.
    """
    if (workdir / "config.json").exists():
        raise UsageError(f"workdir {workdir} holds a run; several need another directory")
