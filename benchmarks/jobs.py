"""Commands side by side: what the benchmarks that train several runs share."""

import json
import os
import subprocess
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from ssljax.storage.files import write_json

ROOT = Path(__file__).parents[1]

T = TypeVar("T")


def call(command: Sequence[str], run: Path, environment: Mapping[str, str] | None = None) -> None:
    """Runs a command in the repository; its output is appended to `<run>.log`.

    Args:
      run: the directory that the command fills; those above it are made.
      environment: all variables of the command; None: those of this process.

    Raises:
      RuntimeError: the command failed.
    """
    run.parent.mkdir(parents=True, exist_ok=True)
    with open(f"{run}.log", "a") as log:
        code = subprocess.call(command, stdout=log, stderr=log, cwd=ROOT, env=environment)
    if code:
        raise RuntimeError(f"{run} ended with exit code {code}; see {run}.log")


def side_by_side(tasks: Iterable[Callable[[], T]], jobs: int) -> Generator[T, None, None]:
    """Yields what each task returns, in the order of the tasks, of which `jobs` run at a time.

    When a task fails, or the iterator is closed, those that have not begun never do.
    """
    pool = ThreadPoolExecutor(jobs)
    try:
        for future in [pool.submit(task) for task in tasks]:
            yield future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def one_thread() -> dict[str, str]:
    """The variables of this process, and those by which JAX, PyTorch and NumPy take one thread."""
    flags = os.environ.get("XLA_FLAGS", "").split()
    flags.append("--xla_cpu_multi_thread_eigen=false")
    return {**os.environ, "XLA_FLAGS": " ".join(dict.fromkeys(flags)), "OMP_NUM_THREADS": "1"}


def done(run: Path, command: Sequence[str]) -> dict[str, Any] | None:
    """The record of `note_done` for a run; None if this command has not filled the directory."""
    file = run.with_suffix(".json")
    found: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    return found if found.get("command") == [*command] else None


def note_done(run: Path, command: Sequence[str], **figures: Any) -> None:
    """Writes into `<run>.json` that a command has filled the directory, and its figures."""
    write_json(run.with_suffix(".json"), {"command": [*command], **figures})
