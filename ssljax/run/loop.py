"""The loop: run steps, log, evaluate, save, and leave when a signal asks for it."""

import signal
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from ssljax.errors import Interrupted
from ssljax.experiment import Experiment
from ssljax.run import evaluate, results
from ssljax.run.metrics import summarize
from ssljax.run.progress import ProgressBar
from ssljax.run.signals import Stopped, stop_signal
from ssljax.run.watchdog import Watchdog
from ssljax.run.writer import RunWriter
from ssljax.storage.files import telling_of_full_disk
from ssljax.training import hosts, parallel
from ssljax.training.monitors import Metrics
from ssljax.training.stream import Feed

PyTree = Any
# Seconds that the steps of a call on an accelerator may take: signals are looked at in between, and
# several processes leave four calls after one of them was sent one.
_CALL = 2.0


class Member(NamedTuple):
    """A run that the loop trains, alone or beside others that differ in their seeds only."""

    experiment: Experiment
    record: RunWriter
    title: str = ""  # before its lines on the screen


class Program(NamedTuple):
    """What the loop runs."""

    members: Sequence[Member]
    run: parallel.TrainSteps
    feed: Callable[[int], AbstractContextManager[Feed]]  # what it reads from a step on
    mapped: bool = False  # whether every array has an axis of members in front

    def split(self, tree: PyTree, axis: int) -> list[PyTree]:
        """Each member's part of a tree; `axis` is where the members are: replicated, 1; else 0."""
        if not self.mapped:
            return [tree]
        return [
            jax.tree.map(lambda x, i=i: x[(slice(None),) * axis + (i,)], tree)
            for i in range(len(self.members))
        ]


def train(experiment: Experiment, workdir: Path, *, home: str = "") -> dict[str, Any]:
    """Trains `experiment` in `workdir`, resuming what is there; returns what `results.json` holds.

    Of several processes the first one reads and writes the directory.

    Args:
      home: the URL of a remote run directory, of which `workdir` is the local copy; "": none.

    Raises:
      UsageError: the directory holds another run, a checkpoint that cannot be read, or a process
        that trains.
      RunError: the run is not healthy, or the disk is full.
      Interrupted: SIGINT or SIGTERM came; the state was saved first.
    """
    shapes = experiment.shapes
    empty = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes["window"])
    hosts.barrier()
    with telling_of_full_disk(workdir), ExitStack() as stack:
        record = RunWriter(experiment, workdir, home)
        saved = hosts.broadcast_tree(lambda: record.open(stack), shapes)
        if saved is None:
            saved = {"state": experiment.init_state(), "window": empty}
        run(
            Program([Member(experiment, record)], experiment.compile_steps(), experiment.feed),
            saved,
            empty,
        )
        return hosts.broadcast_from_first(record.finish)


def run(program: Program, saved: dict[str, Any], empty: Metrics) -> None:
    """Goes on from `saved` to the last step; `empty` is a window without steps."""
    experiment = program.members[0].experiment  # the others have the same sizes and lengths
    step = int(np.ravel(saved["state"].step)[0])
    logged = not any(np.any(average.count) for average in saved["window"].values())
    state, window = (parallel.replicate(saved[x], experiment.devices) for x in ("state", "window"))
    evaluator = experiment.evaluator()

    def save():
        if hosts.is_first():
            tree = parallel.fetch({"state": state, "window": window})
            for member, own in zip(program.members, program.split(tree, axis=0), strict=True):
                member.record.save(step, own)
        stop.stepped = False

    def leave(signum):
        save()
        if hosts.is_first():
            for member in program.members:
                member.record.wait()
        name = signal.Signals(signum).name
        raise Interrupted(signum, f"{name}: saved after step {step}")

    def watched(weights, batches):
        return evaluator(weights, stop.watch(batches))

    def log_and_evaluate():
        evaluated = step % experiment.eval_every == 0 or step == experiment.num_steps
        rates, states = progress.rates(), program.split(state, axis=1)
        means = [summarize(own) for own in program.split(parallel.fetch(window), axis=0)]
        rows = [{"step": step, **own, **rates} for own in means]
        if evaluated:
            for member, own, row in zip(program.members, states, rows, strict=True):
                scores = evaluate.evaluate_state(member.experiment, watched, own)
                row |= scores
                progress.write(f"{member.title}step {step}: {results.describe(scores)}")
        for member, own, row in zip(program.members, states, rows, strict=True):
            seen = own if evaluated else None
            hosts.broadcast_from_first(partial(member.record.write, row, seen, progress.write))
        loss = float(np.mean([row["loss/total"] for row in rows]))
        progress.report({"step": step, "loss/total": loss, **rates})
        return evaluated

    with (
        stop_signal() as stop,
        program.feed(step) as feed,
        ProgressBar(experiment, step, feed) as progress,
    ):
        watchdog = Watchdog(progress.write)
        while True:
            if _is_boundary(experiment, step) and not logged:
                try:
                    evaluated = log_and_evaluate()
                except Stopped:  # the same boundary comes first when the run goes on
                    leave(stop.now())
                window, logged = parallel.replicate(empty, experiment.devices), True
                if evaluated:
                    save()
            if step == experiment.num_steps:
                return
            if signum := stop.now():
                leave(signum)
            count = min(
                _steps_at_once(experiment, watchdog), _next_boundary(experiment, step) - step
            )
            with watchdog.call(step + 1, count, measure=stop.called):
                state, window = program.run(state, window, feed, count)
            stop.called = stop.stepped = True
            step, logged = step + count, False
            progress.advance(count)
            for member in program.members:
                member.record.check()


def _steps_at_once(experiment: Experiment, watchdog: Watchdog) -> int:
    """How many steps a call may do, once it is known how long one takes."""
    seconds = hosts.broadcast_from_first(watchdog.median) if experiment.steps_per_run > 1 else None
    return (
        experiment.steps_per_run
        if not seconds
        else max(1, min(experiment.steps_per_run, int(_CALL / seconds)))
    )


def _is_boundary(experiment: Experiment, step: int) -> bool:
    """Whether something is logged or evaluated after this step."""
    return step > 0 and _next_boundary(experiment, step - 1) == step


def _next_boundary(experiment: Experiment, step: int) -> int:
    """The next step after which something is logged or evaluated."""
    log = step - step % experiment.log_every + experiment.log_every
    evaluation = step - step % experiment.eval_every + experiment.eval_every
    return min(log, evaluation, experiment.num_steps)
