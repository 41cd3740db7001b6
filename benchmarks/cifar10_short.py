"""Three methods on CIFAR-10 with 250 labels, and a PyTorch peer: the runs of docs/results.md.

    python -m benchmarks.cifar10_short --data_dir=<data_dir> --jobs=2 --peer=<python with torch>
    python -m benchmarks.cifar10_short --figure

The first command trains the recipes `<method>_cifar10_short` on the labelled sets 1 to 3, and with
`--peer` also `benchmarks/torch_peer.py` on sets 1 and 2, with FixMatch's settings. Each run has one
thread and lies in `<workdir>/<method>/<set>`. A command that is started again passes over what is
complete, and continues what was interrupted. Further arguments, such as `--config.num_steps=40`, go
to every run of ours, and the peer takes them from there.

`--figure` reads complete runs into `docs/results/cifar10_short/`, draws the two pictures from the
files there, and prints the tables; see `cifar10_short_results.py`.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks import cifar10_short_results, jobs
from benchmarks.cifar10_short_results import METHODS, PEER
from benchmarks.pictures import DOCS
from ssljax.data import datasets
from ssljax.storage.files import replacing

SETS = (1, 2, 3)
PEER_SETS = (1, 2)
PIXELS = "cifar10.npz"  # in the directory of all runs


def train_ours(workdir: Path, method: str, number: int, given: Sequence[str]) -> Path:
    """Trains a method on a labelled set, if that is not complete; returns the run directory.

    Args:
      number: the seed of the labelled set.
      given: further arguments of `launch.py`.

    Raises:
      RuntimeError: the run failed.
    """
    run = workdir / method / str(number)
    command = [
        f"--config={method}_cifar10_short", f"--config.dataset=cifar10.{number}@250-500", *given,
    ]  # fmt: skip
    programs = workdir / "programs"  # each is compiled once for all sets
    here = f"--workdir={run}", f"--config.compilation_cache={programs}"
    return _trained(run, command, [sys.executable, "launch.py", *command, *here])


def train_peer(workdir: Path, number: int, python: str) -> Path:
    """Trains the peer on the labelled set of our run of FixMatch, which must have begun.

    Args:
      python: an interpreter with PyTorch.

    Raises:
      RuntimeError: the run failed, for example for want of our run.
    """
    run = workdir / PEER / str(number)
    command = ["benchmarks/torch_peer.py", f"--run={workdir / 'fixmatch' / str(number)}"]
    here = f"--data={workdir / PIXELS}", f"--workdir={run}"
    return _trained(run, command, [python, *command, *here])


def _trained(run: Path, command: Sequence[str], whole: Sequence[str]) -> Path:
    """Runs the whole command with one thread, if it is not noted that `command` is done."""
    if jobs.done(run, command) is None:
        jobs.call(whole, run, jobs.one_thread())
        jobs.note_done(run, command)
    return run


def write_pixels(data_dir: str, path: Path) -> None:
    """Writes CIFAR-10 for the peer, if it is not there: `train_images` uint8 `[50000, 32, 32, 3]`,
    `train_labels` int64 `[50000]`, and the same of `test`, in the order of our split files."""
    if path.exists():
        return
    data = datasets.cifar10(data_dir)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        np.savez(
            file,
            train_images=data.images,
            train_labels=data.labels,
            test_images=data.test_images,
            test_labels=data.test_labels,
        )


def train(options: argparse.Namespace, given: Sequence[str]) -> None:
    """Trains what is chosen and not complete, set by set, and the peer after all others."""
    workdir = options.workdir.absolute()
    if options.data_dir:
        given = [*given, f"--config.data_dir={os.path.abspath(options.data_dir)}"]
    tasks = [
        partial(train_ours, workdir, method, number, given)
        for number in options.sets
        for method in METHODS
        if method in options.methods
    ]
    if options.peer:
        write_pixels(options.data_dir, workdir / PIXELS)
        numbers = [number for number in options.sets if number in PEER_SETS]
        tasks += [partial(train_peer, workdir, number, options.peer) for number in numbers]
    with closing(jobs.side_by_side(tasks, options.jobs)) as runs:
        for run in runs:
            print(f"{run} is complete", file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Trains, or draws and prints."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0], allow_abbrev=False)
    parser.add_argument("--workdir", type=Path, default=Path("runs/cifar10_short"))
    parser.add_argument("--data_dir", default="", help="of prepared TFDS data sets")
    parser.add_argument("--peer", default="", help="an interpreter with torch; none: no peer")
    parser.add_argument("--methods", default=",".join(METHODS), help="ours, with commas")
    parser.add_argument("--sets", default=",".join(map(str, SETS)), help="labelled sets")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time")
    parser.add_argument("--figure", action="store_true", help="draw what is complete")
    parser.add_argument("--docs", type=Path, default=DOCS, help="where pictures are drawn")
    options, given = parser.parse_known_args(arguments)
    if options.figure:
        print(cifar10_short_results.report(options.workdir, options.docs), end="")
        return
    options.methods = [name for name in options.methods.split(",") if name]
    options.sets = [int(number) for number in options.sets.split(",")]
    if unknown := sorted(set(options.methods) - set(METHODS)):
        parser.error(f"--methods has {', '.join(unknown)}; allowed: {', '.join(METHODS)}")
    train(options, given)


if __name__ == "__main__":
    main()
