"""Starts real processes that train a tiny recipe, and reads their results."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import orbax.checkpoint as ocp

from helpers import compilation
from helpers.compilation import ROOT
from ssljax import flags, recipe
from ssljax.run import loop

ENVIRONMENT = compilation.ENVIRONMENT | {
    "PYTHONPATH": str(Path(__file__).parent / "no_tensorflow"),
}
# The last of several overrides of a knob counts. This step compiles in half the time.
LIGHT = ("--config.augment.strong=strong_digits", "--config.num_steps=12")


def command(workdir: Path, *more: str) -> list[str]:
    """Returns a command for 24 steps of tiny FixMatch with CTAugment, saved every four steps."""
    return [
        sys.executable, "launch.py", "--config=configs/fixmatch_digits.py", f"--workdir={workdir}",
        "--config.model_args.filters=4", "--config.model_args.scales=1", "--config.batch_size=8",
        "--config.uratio=2", "--config.num_steps=24", "--config.log_every=2",
        "--config.eval_every=4", "--config.augment.strong=ctaugment", *more,
    ]  # fmt: skip


def start(workdir: Path, *more: str) -> subprocess.Popen[str]:
    """Starts a run; its output and errors are one text."""
    return subprocess.Popen(
        command(workdir, *more),
        cwd=ROOT,
        env=os.environ | ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def train_here(workdir: Path, *more: str, devices: int) -> None:
    """Trains in this process like `start` in a separate one, with the same programs."""
    config = flags.parse(command(workdir, *more)[2:]).config()
    loop.train(recipe.build(config, max_devices=devices), workdir)


def finish(process: subprocess.Popen[str], timeout: float = 300) -> tuple[int, str]:
    """Waits for a run; returns its exit code and output."""
    output, _ = process.communicate(timeout=timeout)
    return process.returncode, output


def final_state(workdir: Path) -> Any:
    """Returns the newest checkpoint, read with plain Orbax."""
    with ocp.CheckpointManager(workdir.absolute() / "checkpoints") as manager:
        step = manager.latest_step()
        return step, manager.restore(step, args=ocp.args.StandardRestore())


def rows_of(workdir: Path) -> list[dict[str, Any]]:
    """Returns the rows of metrics.jsonl without time-dependent entries."""
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    timed = ("images_per_second", "data_wait")
    return [{k: v for k, v in row.items() if k not in timed} for row in rows]
