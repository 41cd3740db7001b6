"""The files in a run directory, and the checks before a run is resumed there.

config.json     the experiment
init_from.json  the initial weights and their checksum, unless these are random
data.json       the images' shape, the class names and data hashes, see `data/fingerprint.py`
split.json      the labelled images, see `data/split_file.py`
checkpoints/    Orbax checkpoints, one directory per step, each with checksums of its files
SHA256SUMS      checksums of the files above, and of environment.json and results.json
lock            the process that trains here; empty: none
metrics.jsonl   one line per logging or evaluation step
events.out.*    the same for TensorBoard
environment.json, labelled.png, predictions.npz, failure.txt: for the report, see `artifacts.py`
curve.png       the error over the steps, once the run is complete
augment.png     the state of a learned augmentation at the newest evaluation
results.json    the results, once the run is complete
calibration.json    the temperature and its effect, see `inference/calibrate.py`
"""

from pathlib import Path
from typing import Any, NamedTuple

from ssljax.data import split_file
from ssljax.data.splits import fingerprint
from ssljax.errors import UsageError
from ssljax.experiment import Experiment
from ssljax.run import resume
from ssljax.storage import checkpoints, lock, runs
from ssljax.storage.checkpoints import Checkpoints
from ssljax.storage.files import PARTIAL, SUMS, read_json, write_sealed

PyTree = Any

INIT_FROM = "init_from.json"
# Files that a killed start can leave before `config.json` is complete.
_BEGUN = frozenset({"config.json", "data.json", "split.json", INIT_FROM, SUMS, lock.NAME})


def make_directory(workdir: Path) -> None:
    """Creates a run directory, or accepts one with a run or a started one.

    Raises:
      UsageError: the directory has other contents, is part of another run, or cannot be created.
    """
    runs.require_no_part(workdir)
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


def open_directory(workdir: Path, experiment: Experiment) -> None:
    """Writes the run's description, or checks that the directory describes the same run.

    Raises:
      UsageError: the directory has other contents.
    """
    split = split_file.record(
        experiment.split,
        experiment.dataset.added_labels,
        class_counts=experiment.class_counts,
        names=experiment.dataset.names(),
    )
    if (workdir / "config.json").exists():
        require_same(workdir, experiment)
    else:
        make_directory(workdir)
        require_ours(workdir / "split.json", split)
        require_ours(workdir / "data.json", experiment.data_record)
    if experiment.start is not None:
        _require_same_weights(workdir / INIT_FROM, experiment.start.record)
        write_sealed(workdir / INIT_FROM, experiment.start.record)
    write_sealed(workdir / "data.json", experiment.data_record)
    write_sealed(workdir / "split.json", split)
    config = experiment.config | _recorded_checksum(workdir / INIT_FROM)
    write_sealed(workdir / "config.json", config)  # last: with it the directory is a run's


def require_same(workdir: Path, experiment: Experiment) -> None:
    """Checks that the run in a directory is this one.

    Raises:
      UsageError: it is another run, or its data have changed.
    """
    resume.require_same_run(workdir, experiment.config, fingerprint(experiment.split))
    resume.require_same_data(str(workdir), runs.data_record(workdir), experiment.data_record)


def _recorded_checksum(path: Path) -> dict[str, Any]:
    """The checksum of the weights that a run has started with, which it does not read again."""
    return {"init_from_sha256": read_json(path, sha256=str)["sha256"]} if path.exists() else {}


def _require_same_weights(path: Path, record: dict[str, Any]) -> None:
    """Checks that a run without checkpoints restarts from the same initial weights.

    Raises:
      UsageError: the weights of `config.init_from` have changed.
    """
    found = read_json(path) if path.exists() else record
    if found.get("sha256") != record["sha256"]:
        steps = found.get("step"), record.get("step")
        now = f", those of step {steps[1]}, not {steps[0]}" if steps[1] is not None else ""
        raise UsageError(
            f"{path} is that of a run with other initial weights than {record['init_from']} has "
            f"now{now}; use another workdir"
        )


def require_ours(path: Path, value: dict[str, Any]) -> None:
    """Checks that an existing file has the content to be written, so that no user file is lost.

    The file may lack entries, as in older versions, except the hash, which only users omit.

    Raises:
      UsageError: the file has other content.
    """
    there = read_json(path) if path.exists() else {}
    by_hand = bool(there) and "hash" in value and "hash" not in there
    if by_hand or any(key not in value or value[key] != said for key, said in there.items()):
        raise UsageError(f"{path} already exists with other content; use another workdir")


class Begun(NamedTuple):
    """The progress of the run in a directory; `recipe.build` takes both values."""

    batch_size: int | None  # None: there is no run
    started: bool  # whether the run has a checkpoint


def begun(workdir: Path) -> Begun:
    """Returns the progress of the run in a directory."""
    path = workdir / "config.json"
    batch_size = read_json(path, batch_size=int)["batch_size"] if path.exists() else None
    return Begun(batch_size, checkpoints.are_there(workdir))


def newest_state(workdir: Path, template: PyTree, *, keep: int, fallback: bool = False) -> Any:
    """Returns the state in the newest checkpoint of a run directory, on the host.

    Raises:
      UsageError: there is no checkpoint, or it cannot be read.
    """
    with Checkpoints(workdir, keep=keep) as saved:
        newest = saved.restore_newest(template, fallback=fallback)
    if newest is None:
        raise UsageError(f"{workdir} holds no checkpoint yet")
    return newest[1]["state"]
