"""Commands side by side: what the benchmarks that train several runs share."""

import subprocess
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

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
