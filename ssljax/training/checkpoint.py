"""What is in a run directory, and what may be resumed in it.

config.json     the recipe
data.json       the images' shape and the names of their classes, for whoever serves the model
split.json      which images are labelled, see `data/split_file.py`
checkpoints/    Orbax checkpoints, one directory a step
metrics.jsonl   one line a log or evaluation step
events.out.*    the same for TensorBoard
environment.json, labelled.png, predictions.npz, failure.txt: for the report, see `record.py`
augment.png     what the augmentation had learned at the newest evaluation, if it learns
results.json    the results, once the run is complete
"""

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from ssljax.data import split_file
from ssljax.data.datasets import Dataset
from ssljax.data.imagenet import StreamedDataset
from ssljax.data.splits import Split, fingerprint
from ssljax.errors import UsageError
from ssljax.files import read_json, write_json

PyTree = Any

# Knobs that do not change what is computed at any step of the planned run, or only its length.
RESUMABLE = frozenset(
    {
        "cpu_devices",
        "data_dir",  # the hash of the split is compared
        "eval_batch_size",
        "eval_every",
        "keep_checkpoints",
        "log_every",
        "num_epochs",
        "num_seeds",  # a seed of several is an ordinary run
        "num_steps",
        "split_file",
        "steps_per_run",
    }
)


def open_directory(
    workdir: Path, config: dict[str, Any], split: Split, dataset: Dataset | StreamedDataset
) -> None:
    """Writes the run's description, or finds that the run described there is this one.

    Raises:
      UsageError: the directory holds something else.
    """
    if (workdir / "config.json").exists():
        require_same_run(workdir, config, split)
    elif workdir.exists() and any(workdir.iterdir()):
        raise UsageError(f"workdir {workdir} is not empty, and holds no run (no config.json)")
    workdir.mkdir(parents=True, exist_ok=True)
    data = {
        "image_shape": list(dataset.image_shape),
        "class_names": [str(name) for name in dataset.class_names],
    }
    write_json(workdir / "data.json", data)
    write_json(workdir / "split.json", split_file.record(split))
    write_json(workdir / "config.json", config)  # last: with it the directory is a run's


def require_no_run(workdir: Path) -> None:
    """A directory that is to hold several runs is none itself: a report looks no further there.

    Raises:
      UsageError: it is.
    """
    if (workdir / "config.json").exists():
        raise UsageError(f"workdir {workdir} holds a run; several need another directory")


def require_same_run(workdir: Path, config: dict[str, Any], split: Split) -> None:
    """Compares a run directory with a recipe; knobs in `RESUMABLE` may differ.

    Raises:
      UsageError: they are of different runs; names the first difference.
    """
    before = flatten(read_json(workdir / "config.json"))
    after = flatten(json.loads(json.dumps(config)))  # tuples become lists, as in the file
    for key in sorted(before.keys() | after.keys()):
        if key not in RESUMABLE and before.get(key) != after.get(key):
            raise UsageError(
                f"{workdir} holds a run with config.{key}={before.get(key)!r}, not "
                f"{after.get(key)!r}; use another workdir, or the same value to resume"
            )
    found, expected = read_json(workdir / "split.json").get("hash"), fingerprint(split)
    if found != expected:
        raise UsageError(
            f"{workdir} holds a run on another split: its hash is {found}, not {expected}"
        )


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested knobs -> `{"optimizer.lr": 0.03}`."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


class Checkpoints:
    """The checkpoints of one run directory: the newest, and `keep` before it.

    A checkpoint is one pytree of host arrays, written in the background.
    """

    def __init__(self, workdir: Path, *, keep: int):
        self._directory = (workdir / "checkpoints").absolute()
        options = ocp.CheckpointManagerOptions(max_to_keep=keep + 1)
        self._manager = ocp.CheckpointManager(self._directory, options=options)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_: object) -> None:
        self._manager.close()  # waits for the last write

    def newest(self) -> int | None:
        """The step of the newest checkpoint, None where there is none."""
        return self._manager.latest_step()

    def steps(self) -> list[int]:
        """The steps that there are checkpoints of."""
        return list(self._manager.all_steps())

    def save(self, step: int, tree: PyTree) -> None:
        """Starts writing `tree` (host arrays) as the checkpoint of `step`."""
        if step not in self._manager.all_steps():
            self._manager.save(step, args=ocp.args.StandardSave(tree))

    def restore(self, step: int, template: PyTree) -> PyTree:
        """The checkpoint of `step` as NumPy arrays; `template` has the shapes it must have.

        Raises:
          UsageError: it is damaged, or holds something of another shape.
        """
        template = jax.tree.map(lambda x: np.empty(x.shape, x.dtype), template)
        try:
            return self._manager.restore(step, args=ocp.args.StandardRestore(template))
        except Exception as error:  # Orbax and TensorStore raise many kinds
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            raise UsageError(
                f"the newest checkpoint, {self._directory / str(step)}, cannot be read ({reason}); "
                "nothing was changed: remove that directory to go on from the one before"
            ) from error


def newest_state(workdir: Path, template: PyTree, *, keep: int) -> Any:
    """The state in the newest checkpoint of a run directory, on the host.

    Raises:
      UsageError: there is none, or it cannot be read.
    """
    with Checkpoints(workdir, keep=keep) as checkpoints:
        step = checkpoints.newest()
        if step is None:
            raise UsageError(f"{workdir} holds no checkpoint yet")
        return checkpoints.restore(step, template)["state"]
