"""The checkpoints of a run directory, written atomically and with checksums of their files."""

import itertools
import logging
import shutil
import threading
from collections.abc import Container, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from ssljax.errors import RunError, UsageError
from ssljax.log import LOG
from ssljax.storage import checksums
from ssljax.storage.files import FULL, is_full, plain_path

PyTree = Any
# Several seeds of one program save at the same time, and Orbax's writers interfere with each other.
_WRITING = threading.Lock()


class Checkpoints:
    """The checkpoints of one run directory: the newest and, after pruning, `keep` before it.

    A checkpoint is one pytree of host arrays, written in the background. Its directory, named after
    the step, appears atomically and holds checksums of its files. `<step>.partial` is left by a
    kill, `<step>.damaged` was skipped by `restore_newest`.
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
        """Returns the steps that have a checkpoint, the newest first."""
        return _steps(self._directory)

    def save(self, step: int, tree: PyTree, rows: checksums.Prefix | None = None) -> None:
        """Starts writing `tree` (host arrays) as the checkpoint of `step`, unless there is one.

        Args:
          rows: the current `metrics.jsonl`, so that later changes to it are detected.

        Raises:
          The error of the previous write.
        """
        self.wait()
        if step not in self.steps():
            self._writing = self._writer.submit(self._write, step, tree, rows)

    def check(self) -> None:
        """Raises the error of the last write, as `wait` does, if it has ended."""
        if self._writing is not None and self._writing.done():
            self.wait()

    def wait(self) -> None:
        """Waits for the last write.

        Raises:
          RunError: the disk is full.
          Any other error of the write.
        """
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def _write(self, step: int, tree: PyTree, rows: checksums.Prefix | None) -> None:
        partial = self._directory / f"{step}.partial"
        try:
            self._clear()
            self._directory.mkdir(parents=True, exist_ok=True)
            args = ocp.args.Composite(default=ocp.args.StandardSave(tree))
            with (
                _WRITING,
                _orbax_is_quiet(),
                plain_path(self._directory) as plain,
                _checkpointer() as checkpointer,
            ):
                checkpointer.save(plain / partial.name, args=args)
            checksums.commit(partial, self._directory / str(step), rows)
        except Exception as error:
            self._clear()
            if is_full(error):
                raise RunError(f"the checkpoint of step {step} was not saved: {FULL}") from error
            raise

    def prune(self) -> None:
        """Removes old checkpoints; the caller knows when they are no longer needed."""
        self.wait()
        for old in self.steps()[self._keep + 1 :]:
            (self._directory / str(old)).rename(self._directory / f"{old}.partial")
        self._clear()

    def _clear(self) -> None:
        """Removes incomplete checkpoints left by a kill, and those no longer kept."""
        for path in self._directory.glob("*.partial*"):
            shutil.rmtree(path)

    def restore_newest(
        self, template: PyTree | None = None, *, growing: str = "", fallback: bool = False
    ) -> tuple[int, PyTree] | None:
        """Returns the newest checkpoint: its step, and its tree as NumPy arrays; None: none exists.

        A process training there may remove it meanwhile; then a newer one is read.

        Args:
          template: a tree of the required shapes; None: any, as nested dicts.
          growing: the entry of the template that is a dict to which versions add; items missing
            from an older checkpoint become zeros. "": none.
          fallback: whether a damaged checkpoint is reported and the previous one restored.

        Raises:
          UsageError: the checkpoint is damaged, or has other shapes.
        """
        while True:
            steps = self.steps()
            try:
                return self._restore_one_of(steps, template, growing, fallback)
            except UsageError:
                if not steps or steps[0] in self.steps():
                    raise

    def _restore_one_of(
        self, steps: list[int], template: PyTree | None, growing: str, fallback: bool
    ) -> tuple[int, PyTree] | None:
        for step, before in itertools.zip_longest(steps, steps[1:]):
            try:
                return step, self._restore(step, template, growing)
            except checksums.Damaged as error:
                problem = f"{self._directory / str(step)}, cannot be read ({error})"
                if before is None:
                    raise UsageError(
                        f"the last checkpoint, {problem}; nothing was changed"
                    ) from error
                if not fallback:
                    raise UsageError(
                        f"the newest checkpoint, {problem}; nothing was changed. To continue "
                        f"from the previous one, of step {before}, train with "
                        "--config.checkpoint.fallback=true"
                    ) from error
                LOG.warning(
                    f"warning: the checkpoint {problem}; using the previous one, of step {before}"
                )
        return None

    def _restore(self, step: int, template: PyTree | None, growing: str) -> PyTree:
        path = self._directory / str(step)
        checksums.verify(path)
        try:
            with plain_path(self._directory) as plain, _checkpointer() as checkpointer:
                new: PyTree = {}
                if template is not None:
                    template = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), template)
                if growing:
                    saved = checkpointer.metadata(plain / path.name).item_metadata["default"]
                    template, new = _divided(template, growing, saved[growing])
                args = ocp.args.Composite(default=ocp.args.StandardRestore(template))
                found = checkpointer.restore(plain / path.name, args=args)["default"]
                return {**found, growing: {**found[growing], **new}} if new else found
        except Exception as error:  # Orbax and TensorStore raise many types
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            raise UsageError(f"the checkpoint {path} belongs to another run ({reason})") from error

    def remove_after(self, step: int) -> None:
        """Removes the checkpoints after `step`, which will be computed again."""
        for later in [s for s in self.steps() if s > step]:
            (self._directory / str(later)).rename(self._directory / f"{later}.partial")
        self._clear()

    def set_aside(self, step: int) -> None:
        """Renames the damaged checkpoints after `step`, to make room for new ones."""
        for damaged in [s for s in self.steps() if s > step]:
            aside = self._directory / f"{damaged}.damaged"
            shutil.rmtree(aside, ignore_errors=True)
            (self._directory / str(damaged)).rename(aside)


def _divided(tree: PyTree, entry: str, names: Container[str]) -> tuple[PyTree, PyTree]:
    """Splits a tree: with only these names in the dict `entry`, and the rest of the dict."""
    old = {name: value for name, value in tree[entry].items() if name in names}
    new = {name: value for name, value in tree[entry].items() if name not in names}
    return {**tree, entry: old}, new


def are_there(workdir: Path) -> bool:
    """Whether a run directory has a checkpoint, including one of step 0."""
    return bool(_steps(workdir / "checkpoints"))


def newest_step(workdir: Path) -> int:
    """Returns the step of the newest checkpoint of a run directory; 0: there is none."""
    return max(_steps(workdir / "checkpoints"), default=0)


def _steps(directory: Path) -> list[int]:
    found = directory.glob("[0-9]*")
    return sorted((int(path.name) for path in found if path.name.isdigit()), reverse=True)


@contextmanager
def _orbax_is_quiet() -> Iterator[None]:
    """Keeps Orbax's threads from logging errors that are raised again by the waiting thread."""

    def from_others(record: logging.LogRecord) -> bool:
        return not (record.exc_info and "orbax" in record.pathname)

    logger = logging.getLogger("absl")
    logger.addFilter(from_others)
    try:
        yield
    finally:
        logger.removeFilter(from_others)


def _checkpointer() -> ocp.Checkpointer:
    """Returns a checkpointer for the first process only, whatever the number of processes."""
    options = ocp.options.MultiprocessingOptions(
        primary_host=0, active_processes={0}, barrier_sync_key_prefix="first"
    )
    handler = ocp.CompositeCheckpointHandler(
        composite_options=ocp.CompositeOptions(multiprocessing_options=options),
        default=ocp.StandardCheckpointHandler(multiprocessing_options=options),
    )
    return ocp.Checkpointer(handler, multiprocessing_options=options)
