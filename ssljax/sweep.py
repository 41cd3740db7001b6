"""A grid of overrides -> the points of a sweep: ordinary runs, each in a directory and a process
of its own."""

import itertools
import json
import re
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from ssljax.errors import Interrupted, RunError, UsageError
from ssljax.files import read_json
from ssljax.training.run_directory import RESUMABLE, flatten

Point = dict[str, str]  # knob -> value, as after --config.


def grid(text: str) -> list[Point]:
    """`seed=1,2;method_args.threshold=0.9,0.95` -> its four points; the last knob varies fastest.

    Commas inside brackets belong to the value: `optimizer.decay_epochs=(10,20),(15,25)`.

    Raises:
      UsageError: `text` has another form.
    """
    knobs: dict[str, list[str]] = {}
    for part in text.split(";"):
        knob, equals, values = part.strip().partition("=")
        knob = knob.removeprefix("config.")
        if not equals or not knob or knob in knobs:
            raise UsageError(
                f"--sweep={text!r} has {part.strip()!r}; allowed: <knob>=<value>,<value>… of "
                "different knobs, separated by semicolons, or config for the config's get_sweep()"
            )
        knobs[knob] = [value.strip() for value in re.split(r",(?![^(\[]*[)\]])", values)]
    return [dict(zip(knobs, chosen, strict=True)) for chosen in itertools.product(*knobs.values())]


def listed(points: Sequence[Mapping[str, Any]]) -> list[Point]:
    """What a config file's `get_sweep()` returned, a list of {knob: value}."""
    return [{knob: str(value) for knob, value in point.items()} for point in points]


def names(points: Sequence[Point]) -> list[str]:
    """The points' directories, `seed=1+method_args.threshold=0.9`.

    Raises:
      UsageError: there are no points, or two share a directory.
    """
    found = [
        re.sub(r"[^\w.@=+-]", "_", "+".join(f"{knob}={value}" for knob, value in point.items()))
        for point in points
    ]
    twice = [name for i, name in enumerate(found) if not name or name in found[:i]]
    if twice or not found:
        raise UsageError(f"--sweep has {f'{twice[0]!r} twice' if twice else 'no points'}")
    return found


def is_finished(workdir: Path, config: Mapping[str, Any]) -> bool:
    """Whether `workdir` holds the results of just the run that `config` describes.

    A finished run of another recipe is not: training refuses it by name, and a longer one goes on.
    """
    try:
        results, saved = (read_json(workdir / name) for name in ("results.json", "config.json"))
    except UsageError:
        return False
    wanted, found = flatten(json.loads(json.dumps(config))), flatten(saved)
    free = RESUMABLE - {"num_steps", "num_epochs"}
    if wanted["num_epochs"]:  # what follows from another knob and the data
        free |= {"num_steps"}
    if wanted["per_worker_batch_size"]:
        free |= {"batch_size", "per_worker_batch_size"}
    keys = (wanted.keys() | found.keys()) - free
    same = all(wanted.get(key) == found.get(key) for key in keys)
    return same and results.get("step") == found["num_steps"]


def run(commands: Mapping[str, Sequence[str]]) -> None:
    """Runs one command after the other; a signal goes to the one that runs, and stops the sweep.

    Args:
      commands: by the points' names.

    Raises:
      RunError: some failed; the others ran all the same.
      Interrupted: by SIGINT or SIGTERM, after the running one has saved.
    """
    failed = []
    with _children() as children:
        for name, command in commands.items():
            print(f"sweep: {name}", flush=True)
            if children.run(command) and not children.signum:
                failed.append(name)
            if children.signum:
                signame = signal.Signals(children.signum).name
                raise Interrupted(children.signum, f"{signame}: the sweep stopped in {name}")
    if failed:
        raise RunError(f"{len(failed)} of {len(commands)} runs failed: {', '.join(failed)}")


class _Children:
    """The running process, in a group of its own: Ctrl-C must not reach it twice."""

    def __init__(self) -> None:
        self.signum = 0
        self._running: subprocess.Popen[bytes] | None = None

    def run(self, command: Sequence[str]) -> int:
        """The exit code of a command."""
        self._running = subprocess.Popen(command, process_group=0)
        if self.signum:  # it came while the process started
            self._running.send_signal(self.signum)
        return self._running.wait()

    def pass_on(self, signum: int, frame: FrameType | None) -> None:
        """Handles a signal."""
        del frame
        self.signum = signum
        if self._running:
            self._running.send_signal(signum)


@contextmanager
def _children() -> Iterator[_Children]:
    children = _Children()
    stops = (signal.SIGINT, signal.SIGTERM)
    previous = {stop: signal.signal(stop, children.pass_on) for stop in stops}
    try:
        yield children
    finally:
        for stop, action in previous.items():
            signal.signal(stop, action)
