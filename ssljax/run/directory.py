"""What is in a run directory, and what may be resumed in it.

config.json     the experiment
data.json       the images' shape and the names of their classes, for whoever serves the model
split.json      which images are labelled, see `data/split_file.py`
checkpoints/    Orbax checkpoints, one directory a step, each with the checksums of its files
SHA256SUMS      checksums of these and of environment.json and results.json
lock            which process trains here; empty: none
metrics.jsonl   one line a log or evaluation step
events.out.*    the same for TensorBoard
environment.json, labelled.png, predictions.npz, failure.txt: for the report, see `artifacts.py`
curve.png       the error over the steps, once the run is complete
augment.png     what the augmentation had learned at the newest evaluation, if it learns
results.json    the results, once the run is complete
"""

from pathlib import Path
from typing import Any

from ssljax.data import split_file
from ssljax.data.datasets import Dataset
from ssljax.data.splits import Split, fingerprint
from ssljax.data.streaming import StreamedDataset
from ssljax.errors import UsageError
from ssljax.run.resume import require_same_run
from ssljax.storage import lock
from ssljax.storage.checkpoints import Checkpoints
from ssljax.storage.files import PARTIAL, SUMS, read_json, write_sealed

PyTree = Any

# What a start that was killed can leave before `config.json`.
_BEGUN = frozenset({"config.json", "data.json", "split.json", SUMS, lock.NAME})


def make_directory(workdir: Path) -> None:
    """Makes an empty directory for a run, or finds a run, or the beginnings of one.

    Raises:
      UsageError: the directory holds something else, or cannot be made.
    """
    try:
        workdir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"workdir {workdir} cannot be made: {error.strerror}") from error
    names = {
        path.name.removesuffix(PARTIAL).removesuffix(".partial").removeprefix(".")
        for path in workdir.iterdir()
    }
    if not (workdir / "config.json").exists() and not names <= _BEGUN:
        raise UsageError(f"workdir {workdir} is not empty, and holds no run (no config.json)")


def open_directory(
    workdir: Path, config: dict[str, Any], split: Split, dataset: Dataset | StreamedDataset
) -> None:
    """Writes the run's description, or finds that the run described there is this one.

    Raises:
      UsageError: the directory holds something else.
    """
    if (workdir / "config.json").exists():
        require_same_run(workdir, config, fingerprint(split))
    else:
        make_directory(workdir)
    data = {
        "image_shape": list(dataset.image_shape),
        "class_names": [str(name) for name in dataset.class_names],
    }
    write_sealed(workdir / "data.json", data)
    write_sealed(workdir / "split.json", split_file.record(split))
    write_sealed(workdir / "config.json", config)  # last: with it the directory is a run's


def recorded_batch_size(workdir: Path) -> int | None:
    """Of the run in a directory; None where there is none."""
    path = workdir / "config.json"
    return read_json(path)["batch_size"] if path.exists() else None


def newest_state(workdir: Path, template: PyTree, *, keep: int, fallback: bool = False) -> Any:
    """The state in the newest checkpoint of a run directory, on the host.

    Raises:
      UsageError: there is none, or it cannot be read.
    """
    with Checkpoints(workdir, keep=keep) as checkpoints:
        newest = checkpoints.restore_newest(template, fallback=fallback)
    if newest is None:
        raise UsageError(f"{workdir} holds no checkpoint yet")
    return newest[1]["state"]
