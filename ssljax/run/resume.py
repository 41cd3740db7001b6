"""Which run a directory holds, and which knobs may change when it goes on. Needs no JAX."""

import itertools
import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from ssljax.data import splits
from ssljax.errors import UsageError
from ssljax.overrides import complete, flatten
from ssljax.storage.files import read_json

# Knobs that do not change what is computed at any step of the planned run, or only its length.
RESUMABLE = frozenset(
    {
        "checkpoint.fallback",
        "compilation_cache",
        "cpu_devices",
        "data_dir",  # the split and the data are compared
        "eval_batch_size",
        "eval_every",
        "health.stop_on",
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
    before, after = knobs(read_json(workdir / "config.json")), knobs(config)
    if "fingerprint" in _data(workdir):
        before["dataset"], after["dataset"] = (
            splits.without_place(str(x.get("dataset"))) for x in (before, after)
        )
    for key in sorted(before.keys() | after.keys()):
        if key not in RESUMABLE and before.get(key) != after.get(key):
            raise UsageError(
                f"{workdir} holds a run with config.{key}={before.get(key)!r}, not "
                f"{after.get(key)!r}; use another workdir, or the same value to resume"
            )
    found = read_json(workdir / "split.json").get("hash")
    if found != split_hash:
        raise UsageError(
            f"{workdir} holds a run on another split: its hash is {found}, not {split_hash}"
        )


def knobs(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config as JSON has it, flat and complete, without who trains it."""
    flat = flatten(complete(json.loads(json.dumps(config))))  # tuples become lists, as in the file
    return {knob: value for knob, value in flat.items() if not knob.startswith("distributed.")}


def require_same_data(
    workdir: Path, record: Mapping[str, Any], parts: Collection[str] = ("train", "test")
) -> None:
    """Compares the data of a run with those that are here.

    Args:
      record: of the data that are here, see `data/fingerprint.py`.
      parts: whose images have to be the same; runs of older versions have not recorded them.

    Raises:
      UsageError: they are of other classes, of another size, or other images.
    """
    compare_data(str(workdir), _data(workdir), record, parts)


def compare_data(
    name: str, found: Mapping[str, Any], record: Mapping[str, Any], parts: Collection[str]
) -> None:
    """As `require_same_data`, of a `found` record; a field that it does not have is not compared.

    Args:
      name: of what has recorded it.
    """
    shapes = found.get("image_shape", record["image_shape"]), record["image_shape"]
    if shapes[0] != shapes[1]:
        before, after = ("×".join(map(str, shape)) for shape in shapes)
        raise UsageError(f"{name} is of images of {before}; those of config.dataset are {after}")
    classes = found.get("class_names", record["class_names"]), record["class_names"]
    for number, (before, after) in enumerate(itertools.zip_longest(*classes)):
        if before != after:
            raise UsageError(
                f"{name} knows class {number} as {before!r}, which in config.dataset is "
                f"{after!r}; allowed: the same classes in the same order"
            )
    for part in parts:
        before, after = (x.get("fingerprint", {}).get(part) for x in (found, record))
        if before is not None and before != after:
            raise UsageError(
                f"{name} is of other {_PARTS[part]}s and labels than config.dataset has now: "
                f"their fingerprint is {before}, not {after}"
            )


_PARTS = {"train": "training image", "test": "test image"}


def _data(workdir: Path) -> dict[str, Any]:
    path = workdir / "data.json"
    return read_json(path) if path.exists() else {}


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
