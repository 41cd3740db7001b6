"""What is in a run directory, and what may be resumed in it.

config.json     the recipe
data.json       the images' shape and the names of their classes, for whoever serves the model
split.json      which images are labelled, see `data/split_file.py`
checkpoints/    Orbax checkpoints, one directory a step, each with the checksums of its files
lock            which process trains here; empty: none
metrics.jsonl   one line a log or evaluation step
events.out.*    the same for TensorBoard
environment.json, labelled.png, predictions.npz, failure.txt: for the report, see `for_report.py`
augment.png     what the augmentation had learned at the newest evaluation, if it learns
results.json    the results, once the run is complete
"""

import itertools
import json
import shutil
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from ssljax.data import split_file
from ssljax.data.datasets import Dataset
from ssljax.data.imagenet import StreamedDataset
from ssljax.data.splits import Split, fingerprint
from ssljax.errors import RunError, UsageError
from ssljax.files import FULL, is_full, read_json, write_json
from ssljax.training import lock, manifest

PyTree = Any

# Knobs that do not change what is computed at any step of the planned run, or only its length.
RESUMABLE = frozenset(
    {
        "checkpoint.fallback",
        "cpu_devices",
        "data_dir",  # the hash of the split is compared
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


# Several seeds of one program save at the same time, and Orbax's writers get in each other's way.
_WRITING = threading.Lock()
# What a start that was killed can leave before `config.json`.
_BEGUN = frozenset({"config.json", "data.json", "split.json", lock.NAME})


def make_directory(workdir: Path) -> None:
    """Makes an empty directory for a run, or finds a run, or the beginnings of one.

    Raises:
      UsageError: the directory holds something else, or cannot be made.
    """
    try:
        workdir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"workdir {workdir} cannot be made: {error.strerror}") from error
    names = {path.name.removesuffix(".partial") for path in workdir.iterdir()}
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
        require_same_run(workdir, config, split)
    else:
        make_directory(workdir)
    data = {
        "image_shape": list(dataset.image_shape),
        "class_names": [str(name) for name in dataset.class_names],
    }
    write_json(workdir / "data.json", data)
    write_json(workdir / "split.json", split_file.record(split))
    write_json(workdir / "config.json", config)  # last: with it the directory is a run's


def recorded_batch_size(workdir: Path) -> int | None:
    """Of the run in a directory; None where there is none."""
    path = workdir / "config.json"
    return read_json(path)["batch_size"] if path.exists() else None


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

    A checkpoint is one pytree of host arrays, written in the background. Its directory, named after
    the step, appears whole or not at all, and holds checksums of its files. `<step>.partial` is
    what a kill left of one, `<step>.damaged` what `restore_newest` passed over.
    """

    def __init__(self, workdir: Path, *, keep: int):
        self._directory = (workdir / "checkpoints").absolute()
        self._keep = keep
        self._writer = ThreadPoolExecutor(1)
        self._writing: Future[None] | None = None

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._writer.shutdown()
        if kind is None:
            self.wait()

    def steps(self) -> list[int]:
        """The steps that have a checkpoint, the newest first."""
        found = self._directory.glob("[0-9]*")
        return sorted((int(path.name) for path in found if path.name.isdigit()), reverse=True)

    def save(self, step: int, tree: PyTree) -> None:
        """Starts writing `tree` (host arrays) as the checkpoint of `step`, unless there is one.

        Raises:
          What the write before raised.
        """
        self.wait()
        if step not in self.steps():
            self._writing = self._writer.submit(self._write, step, tree)

    def check(self) -> None:
        """As `wait`, if there is nothing to wait for."""
        if self._writing is not None and self._writing.done():
            self.wait()

    def wait(self) -> None:
        """Waits for the write that was begun last.

        Raises:
          RunError: the disk is full.
          Whatever else the write raised.
        """
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def _write(self, step: int, tree: PyTree) -> None:
        partial = self._directory / f"{step}.partial"
        try:
            self._clear()
            self._directory.mkdir(parents=True, exist_ok=True)
            with _WRITING, _checkpointer() as checkpointer:
                checkpointer.save(
                    partial, args=ocp.args.Composite(default=ocp.args.StandardSave(tree))
                )
            manifest.commit(partial, self._directory / str(step))
        except Exception as error:
            self._clear()
            if is_full(error):
                raise RunError(f"the checkpoint of step {step} was not saved: {FULL}") from error
            raise
        for old in self.steps()[self._keep + 1 :]:
            (self._directory / str(old)).rename(self._directory / f"{old}.partial")
        self._clear()

    def _clear(self) -> None:
        """Removes what is not whole: what a kill left, and what is no longer kept."""
        for path in self._directory.glob("*.partial*"):
            shutil.rmtree(path)

    def restore_newest(
        self, template: PyTree | None = None, *, fallback: bool = False
    ) -> tuple[int, PyTree] | None:
        """The newest checkpoint: its step, and its tree as NumPy arrays; None where there is none.

        Args:
          template: has the shapes it must have; None: any, in nested dicts.
          fallback: whether a damaged one is reported and the one before it taken.

        Raises:
          UsageError: it is damaged, or holds something of another shape.
        """
        steps = self.steps()
        for step, before in itertools.zip_longest(steps, steps[1:]):
            try:
                return step, self._restore(step, template)
            except manifest.Damaged as error:
                problem = f"{self._directory / str(step)}, cannot be read ({error})"
                if before is None:
                    raise UsageError(
                        f"the last checkpoint, {problem}; nothing was changed"
                    ) from error
                if not fallback:
                    raise UsageError(
                        f"the newest checkpoint, {problem}; nothing was changed. To go on from "
                        f"the one before, of step {before}, train with "
                        "--config.checkpoint.fallback=true"
                    ) from error
                print(f"warning: the checkpoint {problem}; taking the one before, of step {before}")
        return None

    def _restore(self, step: int, template: PyTree | None) -> PyTree:
        if template is not None:
            template = jax.tree.map(lambda x: np.empty(x.shape, x.dtype), template)
        path = self._directory / str(step)
        manifest.verify(path)
        args = ocp.args.Composite(default=ocp.args.StandardRestore(template))
        try:
            with _checkpointer() as checkpointer:
                return checkpointer.restore(path, args=args)["default"]
        except Exception as error:  # Orbax and TensorStore raise many kinds
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            raise UsageError(f"the checkpoint {path} is of another run ({reason})") from error

    def remove_after(self, step: int) -> None:
        """Removes the checkpoints after `step`, which will be computed again."""
        for later in [s for s in self.steps() if s > step]:
            (self._directory / str(later)).rename(self._directory / f"{later}.partial")
        self._clear()

    def set_aside(self, step: int) -> None:
        """Renames the checkpoints after `step`, which are damaged, to make room for new ones."""
        for damaged in [s for s in self.steps() if s > step]:
            aside = self._directory / f"{damaged}.damaged"
            shutil.rmtree(aside, ignore_errors=True)
            (self._directory / str(damaged)).rename(aside)


def _checkpointer() -> ocp.Checkpointer:
    """Of the first process alone, however many take part in the run."""
    options = ocp.options.MultiprocessingOptions(
        primary_host=0, active_processes={0}, barrier_sync_key_prefix="first"
    )
    handler = ocp.CompositeCheckpointHandler(
        composite_options=ocp.CompositeOptions(multiprocessing_options=options),
        default=ocp.StandardCheckpointHandler(multiprocessing_options=options),
    )
    return ocp.Checkpointer(handler, multiprocessing_options=options)


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
