"""The training loop: runs steps, logs, evaluates, saves, and stops on a signal."""

import signal
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import jax
import numpy as np

from ssljax import interrupts
from ssljax.data import splits
from ssljax.data.labels import are_uneven
from ssljax.errors import Interrupted, RunError
from ssljax.experiment import Experiment
from ssljax.run import artifacts, evaluate, results, resume
from ssljax.run.evaluate import Predictions
from ssljax.run.metrics import summarize
from ssljax.run.progress import ProgressBar
from ssljax.run.signals import Stop, Stopped, stop_signal
from ssljax.run.watchdog import Watchdog
from ssljax.run.writer import RunWriter
from ssljax.storage.checkpoints import newest_step
from ssljax.storage.files import telling_of_storage
from ssljax.training import devices, hosts, parallel
from ssljax.training.monitors import Metrics
from ssljax.training.state import TrainState
from ssljax.training.stream import Feed, Stream

PyTree = Any
# Maximum duration in seconds of one call's steps on an accelerator. Signals are checked between
# calls; with several processes, the run ends four calls after one of them received a signal.
_CALL = 2.0


class Member(NamedTuple):
    """A run in the loop, alone or together with others that differ only in their seeds."""

    experiment: Experiment
    writer: RunWriter
    title: str = ""  # prefix of its log lines


class Program(NamedTuple):
    """The compiled program and data of the loop."""

    members: Sequence[Member]
    run: parallel.TrainSteps
    feed: Callable[[int], AbstractContextManager[Feed]]  # opens the input from a step on
    mapped: bool = False  # whether every array has a leading axis of members

    @property
    def experiment(self) -> Experiment:
        """The first member's experiment; the others have the same sizes and lengths."""
        return self.members[0].experiment

    def split(self, tree: PyTree, axis: int) -> list[PyTree]:
        """Splits a tree by member along `axis`: 1 for replicated arrays, else 0."""
        if not self.mapped:
            return [tree]
        return [
            jax.tree.map(lambda x, i=i: x[(slice(None),) * axis + (i,)], tree)
            for i in range(len(self.members))
        ]


class LoopState(NamedTuple):
    """The state of the loop between two calls."""

    step: int  # steps begun; with a stream, the last two may be running
    state: TrainState  # replicated
    metric_sums: Metrics  # replicated, over the steps since the last row
    logged: bool  # whether the row of `step` has been written


class Session(NamedTuple):
    """The objects used by the loop from its first to its last step."""

    program: Program
    first: int  # the step that training resumes from
    feed: Feed
    evaluate: parallel.Evaluate
    empty: Metrics  # metric sums over no step, on the host
    stop: Stop
    progress: ProgressBar
    watchdog: Watchdog


def train(experiment: Experiment, workdir: Path, *, home: str = "") -> dict[str, Any]:
    """Trains `experiment` in `workdir`, resuming a run found there; returns its results.json.

    With several processes, the first one reads and writes the directory.

    Args:
      home: the URL of a remote run directory, of which `workdir` is the local copy; "": none.

    Raises:
      UsageError: the directory holds another run or an unreadable checkpoint, or another process
        trains there; or a step does not fit in the memory of a device.
      RunError: the run is not healthy, or the disk is full.
      Interrupted: SIGINT, SIGTERM or SIGHUP arrived; the state was saved first.
    """
    hosts.require_same(_description(experiment, home or str(workdir)))
    shapes = experiment.shapes
    empty = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes["window"])
    steps = _steps(experiment, workdir)
    hosts.barrier()
    with telling_of_storage(workdir), ExitStack() as stack:
        writer = RunWriter(experiment, workdir, home)
        saved = hosts.broadcast_tree(lambda: writer.open(stack), shapes)
        if saved is None:
            saved = {"state": experiment.init_state(), "window": empty}
        experiment.begin(saved["state"])
        run(
            Program([Member(experiment, writer)], steps, experiment.feed),
            saved,
            empty,
        )
        found = hosts.broadcast_from_first(writer.finish)
        if hosts.is_first():
            artifacts.tell_what_is_there(workdir)
        return found


def _steps(experiment: Experiment, workdir: Path) -> parallel.TrainSteps:
    """Returns the steps, compiled before anything is written if that tells whether they fit.

    Raises:
      UsageError: a step does not fit in the memory of a device.
      Ended: a signal arrived while they were compiled.
    """
    if newest_step(workdir) == experiment.num_steps:
        return experiment.compile_steps()  # nothing is left to train
    with stop_signal() as stop:
        steps = experiment.fitting_steps()
    if stop.signum:
        raise interrupts.Ended(stop.signum)
    return steps


def _description(experiment: Experiment, workdir: str) -> dict[str, Any]:
    """Returns what all processes of a run must agree on, which excludes the paths of data."""
    config = resume.knobs(experiment.config)
    config["dataset"] = splits.without_place(config["dataset"])
    return {
        **{f"config.{knob}": value for knob, value in config.items() if knob not in resume.OWN},
        "workdir": workdir,
        "split": splits.fingerprint(experiment.split),
        "data": experiment.data_record["fingerprint"],
        "weights": experiment.start and experiment.start.record,
    }


def run(program: Program, saved: dict[str, Any], empty: Metrics) -> None:
    """Trains from the state `saved` in a checkpoint to the last step.

    Args:
      empty: metric sums over zero steps.
    """
    experiment = program.experiment
    step = int(np.ravel(saved["state"].step)[0])
    now = LoopState(
        step,
        parallel.replicate(saved["state"], experiment.devices),
        parallel.replicate(saved["window"], experiment.devices),
        logged=not any(np.any(average.count) for average in saved["window"].values()),
    )
    with (
        devices.telling_of_full_memory(),
        stop_signal() as stop,
        program.feed(step) as feed,
        ProgressBar(experiment, step, feed) as progress,
    ):
        watchdog = Watchdog(progress.write, step)
        session = Session(
            program, step, feed, experiment.evaluator(), empty, stop, progress, watchdog
        )
        while True:
            if _is_boundary(experiment, now.step) and not now.logged:
                now = _log_and_evaluate(session, now)
            if now.step == experiment.num_steps:
                return
            if signum := stop.now():
                _leave(session, now, signum)
            now = _run_steps(session, now)


def _run_steps(session: Session, now: LoopState) -> LoopState:
    """Runs one call of the compiled steps, at most to the next boundary, and waits there."""
    experiment, stop = session.program.experiment, session.stop
    boundary = _next_boundary(experiment, now.step)
    last = min(now.step + _steps_at_once(experiment, session.watchdog), boundary)
    if not stop.called:
        session.progress.write("compiling the step …")
    with session.watchdog.call(last, partial(_done, session), measure=stop.called):
        state, metric_sums = session.program.run(
            now.state, now.metric_sums, session.feed, last - now.step
        )
        if last == boundary and isinstance(session.feed, Stream):
            session.feed.wait()  # so that the time is measured after the steps
    stop.called = stop.stepped = True
    session.progress.advance(last - now.step)
    for member in session.program.members:
        member.writer.check()
    return LoopState(last, state, metric_sums, logged=False)


def _done(session: Session, step: int) -> int:
    """Returns the last step that is complete, when `step` is the last one begun."""
    return session.first + session.feed.done if isinstance(session.feed, Stream) else step


def _log_and_evaluate(session: Session, now: LoopState) -> LoopState:
    """Writes the row of a boundary; at an evaluation step, also evaluates and saves.

    Raises:
      Interrupted: a signal arrived during the evaluation, which is repeated on resuming.
      RunError: the evaluation failed; it is repeated on resuming.
    """
    program, progress, experiment = session.program, session.progress, session.program.experiment
    rates, states = progress.rates(), program.split(now.state, axis=1)
    metric_sums = program.split(parallel.fetch(now.metric_sums), axis=0)
    rows = [
        {"step": now.step, **summarize(sums, member.experiment.class_counts), **rates}
        for sums, member in zip(metric_sums, program.members, strict=True)
    ]
    evaluated = now.step % experiment.eval_every == 0 or now.step == experiment.num_steps
    if evaluated:
        progress.pause("evaluating")
        try:
            found = [_evaluate(session, *x) for x in zip(program.members, states, strict=True)]
        except Stopped:
            _leave(session, now, session.stop.now())
        except RunError:  # images cannot be read; training up to here is saved
            _save(session, now)
            raise
        for member, row, (scores, _) in zip(program.members, rows, found, strict=True):
            texts = [results.describe(scores)]
            if are_uneven(member.experiment.class_counts):
                texts.append(results.describe_classes(row))
            row |= scores
            progress.show(row, "; ".join(filter(None, texts)), member.title)
    else:
        loss = float(np.mean([row["loss/total"] for row in rows]))
        progress.show({"step": now.step, "loss/total": loss, **rates})
    for i, (member, row) in enumerate(zip(program.members, rows, strict=True)):
        evaluation = (states[i], found[i][1]) if evaluated else None
        hosts.broadcast_from_first(partial(member.writer.write, row, evaluation, progress.write))
    now = now._replace(
        metric_sums=parallel.replicate(session.empty, experiment.devices), logged=True
    )
    if evaluated:
        _save(session, now)
    progress.resume()
    return now


def _evaluate(
    session: Session, member: Member, state: TrainState
) -> tuple[results.Scores, Predictions | None]:
    return evaluate.evaluate_state(member.experiment, session.evaluate, state, session.stop.watch)


def _save(session: Session, now: LoopState) -> None:
    """Starts saving each member's checkpoint."""
    if hosts.is_first():
        tree = parallel.fetch({"state": now.state, "window": now.metric_sums})
        trees = session.program.split(tree, axis=0)
        prune(session.program.members)
        for member, checkpoint in zip(session.program.members, trees, strict=True):
            member.writer.save(now.step, checkpoint)
    session.stop.stepped = False


def prune(members: Sequence[Member]) -> None:
    """Removes old checkpoints once all members have saved their newest one."""
    for member in members:
        member.writer.wait()
    for member in members:
        member.writer.prune()


def _leave(session: Session, now: LoopState, signum: int) -> NoReturn:
    """Saves the state, then ends the run because of a signal.

    Raises:
      Interrupted: always.
    """
    _save(session, now)
    if hosts.is_first():
        prune(session.program.members)
    name = signal.Signals(signum).name
    raise Interrupted(signum, f"{name}: saved after step {now.step}")


def _steps_at_once(experiment: Experiment, watchdog: Watchdog) -> int:
    """Returns the number of steps per call, once the duration of a step is known."""
    seconds = hosts.broadcast_from_first(watchdog.median) if experiment.steps_per_run > 1 else None
    return (
        experiment.steps_per_run
        if not seconds
        else max(1, min(experiment.steps_per_run, int(_CALL / seconds)))
    )


def _is_boundary(experiment: Experiment, step: int) -> bool:
    """Whether this step is followed by logging or an evaluation."""
    return step > 0 and _next_boundary(experiment, step - 1) == step


def _next_boundary(experiment: Experiment, step: int) -> int:
    """Returns the next step followed by logging or an evaluation."""
    log = step - step % experiment.log_every + experiment.log_every
    evaluation = step - step % experiment.eval_every + experiment.eval_every
    return min(log, evaluation, experiment.num_steps)
