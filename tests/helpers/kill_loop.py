"""Kills one short run repeatedly, and compares it with an undisturbed run.

    python tests/faults/kill_loop.py --kills=30 --seed=0

Kills come at random times: at start-up, during steps, saves and evaluations. Exits with 1 if a
final parameter, average, CTAugment rate or row of metrics differs in a single bit.
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from helpers import processes


def main() -> None:
    """Parses flags, prints each kill and the verdict."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        torment(Path(folder), kills=args.kills, seed=args.seed)


def torment(folder: Path, *, kills: int, seed: int, num_steps: int = 200) -> Counter[str]:
    """Trains one run with `kills` SIGKILLs and one without; returns what the kills interrupted.

    Raises:
      AssertionError: the runs differ.
    """
    more = [f"--config.num_steps={num_steps}"]
    whole, cut = folder / "whole", folder / "cut"
    code, output = processes.finish(processes.start(whole, *more))
    assert code == 0, output

    rng, interrupted = random.Random(seed), Counter[str]()
    while interrupted.total() < kills:
        if (what := kill(cut, more, rng)) is None:
            shutil.move(cut, folder / "finished")  # too late; the next run starts over
            same(whole, folder / "finished")
            shutil.rmtree(folder / "finished")
            continue
        interrupted[what] += 1
        print(f"kill {interrupted.total()}: {what}", flush=True)
    code, output = processes.finish(processes.start(cut, *more))
    assert code == 0, output
    same(whole, cut)
    print(f"after {kills} kills ({dict(interrupted)}) all is as without")
    return interrupted


def kill(workdir: Path, more: list[str], rng: random.Random) -> str | None:
    """Starts or resumes a run and kills it; returns its activity, or None if it had ended."""
    process = subprocess.Popen(
        processes.command(workdir, *more),
        cwd=processes.ROOT,
        env=os.environ | processes.ENVIRONMENT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    what = rng.choice(["start-up", "steps", "save", "evaluation"])
    _wait(process, INSTANTS[what](workdir, rng))
    if process.poll() is not None:
        assert process.returncode == 0
        return None
    process.send_signal(signal.SIGKILL)
    process.wait()
    return what


def _start_up(workdir: Path, rng: random.Random) -> Callable[[], bool]:
    end = time.monotonic() + rng.uniform(0, 6)
    return lambda: time.monotonic() > end


def _steps(workdir: Path, rng: random.Random) -> Callable[[], bool]:
    return _after(lambda: len(_lines(workdir)), rng)


def _save(workdir: Path, rng: random.Random) -> Callable[[], bool]:
    return lambda: any((workdir / "checkpoints").glob("*.partial*"))


def _evaluation(workdir: Path, rng: random.Random) -> Callable[[], bool]:
    """Returns whether a row that precedes an evaluation was written, plus a random delay."""
    return _after(lambda: sum(b"test/" not in line for line in _lines(workdir)), rng)


INSTANTS = {"start-up": _start_up, "steps": _steps, "save": _save, "evaluation": _evaluation}


def _after(count: Callable[[], int], rng: random.Random, most: float = 0.3) -> Callable[[], bool]:
    """Returns a condition that holds a random time after `count` has increased."""
    before, pause, end = count(), rng.uniform(0, most), []

    def now() -> bool:
        if not end and count() > before:
            end.append(time.monotonic() + pause)
        return bool(end) and time.monotonic() > end[0]

    return now


def _lines(workdir: Path) -> list[bytes]:
    path = workdir / "metrics.jsonl"
    return path.read_bytes().splitlines() if path.exists() else []


def _wait(process: subprocess.Popen[bytes], condition: Callable[[], bool]) -> None:
    while process.poll() is None and not condition():
        time.sleep(0.001)


def same(whole: Path, cut: Path) -> None:
    """Checks that both runs end with the same arrays, rows and results."""
    jax.tree.map(
        np.testing.assert_array_equal, processes.final_state(whole), processes.final_state(cut)
    )
    assert processes.rows_of(whole) == processes.rows_of(cut)
    assert (whole / "results.json").read_text() == (cut / "results.json").read_text()
    assert not [*(cut / "checkpoints").glob("*.partial*")], "a part of a checkpoint was left"


if __name__ == "__main__":
    main()
