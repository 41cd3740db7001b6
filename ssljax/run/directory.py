"""What is in a run directory, and what may be resumed in it.

config.json     the experiment
init_from.json  the weights that it starts with, and their checksum, where these are not random
data.json       the images' shape, the names of their classes, and hashes, see `data/fingerprint.py`
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
calibration.json    the temperature and what it does, see `inference/calibrate.py`
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
# What a start that was killed can leave before `config.json`.
_BEGUN = frozenset({"config.json", "data.json", "split.json", INIT_FROM, SUMS, lock.NAME})


def make_directory(workdir: Path) -> None:
    """Makes an empty directory for a run, or finds a run, or the beginnings of one.

    Raises:
      UsageError: the directory holds something else, is a part of another run, or cannot be made.
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
    """Writes the run's description, or finds that the run described there is this one.

    Raises:
      UsageError: the directory holds something else.
    """
    split = split_file.record(
        experiment.split, experiment.dataset.added_labels, class_counts=experiment.class_counts
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
    """Finds that the run in a directory is this one.

    Raises:
      UsageError: it is another one, or its data are others.
    """
    resume.require_same_run(workdir, experiment.config, fingerprint(experiment.split))
    resume.require_same_data(str(workdir), runs.data_record(workdir), experiment.data_record)


def _recorded_checksum(path: Path) -> dict[str, Any]:
    """The checksum of the weights that a run has started with, which it does not read again."""
    return {"init_from_sha256": read_json(path, sha256=str)["sha256"]} if path.exists() else {}


def _require_same_weights(path: Path, record: dict[str, Any]) -> None:
    """A run that has no checkpoint yet starts again with the weights that it was begun with.

    Raises:
      UsageError: those of `config.init_from` are others now.
    """
    found = read_json(path) if path.exists() else record
    if found.get("sha256") != record["sha256"]:
        steps = found.get("step"), record.get("step")
        now = f", those of step {steps[1]}, not {steps[0]}" if steps[1] is not None else ""
        raise UsageError(
            f"{path} is of a run that begins with other weights than {record['init_from']} has "
            f"now{now}; use another workdir"
        )


def require_ours(path: Path, value: dict[str, Any]) -> None:
    """What lies where a file is to be written is what will be written, and nobody's own.

    It can say less: older versions did.

    Raises:
      UsageError: it is something else.
    """
    there = read_json(path) if path.exists() else {}
    if any(key not in value or value[key] != said for key, said in there.items()):
        raise UsageError(f"{path} is there already and holds something else; use another workdir")


class Begun(NamedTuple):
    """How far the run in a directory is; `recipe.build` takes both."""

    batch_size: int | None  # None: there is no run
    started: bool  # whether it has a checkpoint


def begun(workdir: Path) -> Begun:
    """How far the run in a directory is."""
    path = workdir / "config.json"
    batch_size = read_json(path, batch_size=int)["batch_size"] if path.exists() else None
    return Begun(batch_size, checkpoints.are_there(workdir))


def newest_state(workdir: Path, template: PyTree, *, keep: int, fallback: bool = False) -> Any:
    """The state in the newest checkpoint of a run directory, on the host.

    Raises:
      UsageError: there is none, or it cannot be read.
    """
    with Checkpoints(workdir, keep=keep) as saved:
        newest = saved.restore_newest(template, fallback=fallback)
    if newest is None:
        raise UsageError(f"{workdir} holds no checkpoint yet")
    return newest[1]["state"]
