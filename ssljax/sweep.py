"""The points of a sweep: ordinary runs, each with its own directory and process."""

import os
import signal
import subprocess
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from ssljax import interrupts
from ssljax.errors import Interrupted, RunError, UsageError
from ssljax.run.resume import RESUMABLE, knobs
from ssljax.storage.files import read_json


def is_finished(workdir: Path, config: Mapping[str, Any]) -> bool:
    """Whether `workdir` holds the results of exactly the run that `config` describes.

    A finished run of another recipe does not count: training rejects it with a message, and a
    longer run is continued.
    """
    try:
        results = read_json(workdir / "results.json")
        saved = read_json(workdir / "config.json", num_steps=int)
    except UsageError:
        return False
    wanted, found = knobs(config), knobs(saved)
    free = RESUMABLE - {"num_steps", "num_epochs"}
    if wanted["num_epochs"]:  # num_steps follows from num_epochs and the data
        free |= {"num_steps"}
    if wanted["per_worker_batch_size"]:
        free |= {"batch_size", "per_worker_batch_size"}
    keys = (wanted.keys() | found.keys()) - free
    same = all(wanted.get(key) == found.get(key) for key in keys)
    return same and results.get("step") == found["num_steps"]


def run(commands: Mapping[str, Sequence[str]], *, finished: Collection[str] = ()) -> None:
    """Runs the commands in order; a signal is passed to the running one and stops the sweep.

    The runs share a compilation cache, unless JAX is already configured with one.

    Args:
      commands: the commands by the names of their points.
      finished: names of the points that are not run again.

    Raises:
      RunError: some runs failed; the others ran nevertheless.
      Interrupted: a signal arrived; the running command has saved its state.
    """
    failed = []
    with _shared_programs() as shared, _children() as children:
        for number, (name, command) in enumerate(commands.items(), 1):
            done = " is finished" if name in finished else ""
            print(f"sweep: {number} of {len(commands)}, {name}{done}", flush=True)
            if done:
                continue
            if children.run(command, shared | os.environ) and not children.signum:
                failed.append(name)
            if children.signum:
                signame = signal.Signals(children.signum).name
                raise Interrupted(children.signum, f"{signame}: the sweep stopped in {name}")
    if failed:
        raise RunError(f"{len(failed)} of {len(commands)} runs failed: {', '.join(failed)}")


@contextmanager
def _shared_programs() -> Iterator[dict[str, str]]:
    """Yields variables for a shared compilation cache; {} if no temporary folder can be made."""
    try:
        cache = tempfile.TemporaryDirectory(prefix="ssljax-sweep-")
    except OSError:
        yield {}
        return
    with cache as path:
        yield {
            "JAX_COMPILATION_CACHE_DIR": path,
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        }


class _Children:
    """The running process, in its own group, so that a terminal's signals do not reach it twice."""

    def __init__(self) -> None:
        self.signum = 0
        self._running: subprocess.Popen[bytes] | None = None

    def run(self, command: Sequence[str], environment: Mapping[str, str]) -> int:
        """Runs a command and returns its exit code."""
        self._running = subprocess.Popen(command, process_group=0, env=environment)
        if self.signum:  # a signal arrived while the process started
            self._running.send_signal(self.signum)
        return self._running.wait()

    def pass_on(self, signum: int, frame: FrameType | None) -> None:
        """Handles a signal by passing it to the running process."""
        del frame
        self.signum = signum
        if self._running:
            self._running.send_signal(signum)


@contextmanager
def _children() -> Iterator[_Children]:
    children = _Children()
    with interrupts.handled(children.pass_on):
        yield children
