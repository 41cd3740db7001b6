"""Several seeds of a recipe in one program: the ordinary step, mapped over the seeds.

Every seed writes an ordinary run directory, `<workdir>/seed=<seed>`. A seed computes the same as in
a separate run, up to the order of summation, because convolutions of several networks become
grouped ones. A dozen tiny steps agree to 1e-6 (`tests/run/test_seeds.py`); over a long run the
differences grow, as they do between two machines.
"""

from collections.abc import Sequence
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ssljax.data.batches import TrainingData
from ssljax.errors import UsageError
from ssljax.experiment import Experiment
from ssljax.run import artifacts, directory, loop, resume
from ssljax.run.writer import RunWriter
from ssljax.storage.checkpoints import Checkpoints, newest_step
from ssljax.storage.files import read_json, telling_of_storage
from ssljax.training import parallel

PyTree = Any
_AXES = TrainingData(images=None, labeled=0, labels=0, unlabeled=0, unlabeled_labels=0)  # type: ignore[arg-type]


def train(experiments: Sequence[Experiment], workdir: Path) -> dict[str, dict[str, Any]]:
    """Trains the experiments of `recipe.build_seeds`, resuming runs found there.

    Completed seeds are skipped; the others continue together from the newest step that each of them
    has saved.

    Returns:
      The content of each `results.json`, by the name of its directory.

    Raises:
      UsageError, RunError, Interrupted: as for `loop.train`; an error of one seed stops all.
    """
    resume.require_no_run(workdir)
    workdirs = [_directory(workdir, experiment.seed) for experiment in experiments]
    left = [x for x in zip(experiments, workdirs, strict=True) if not _is_complete(*x)]
    if left:
        with telling_of_storage(workdir), ExitStack() as stack:
            _train(left, stack)
    artifacts.tell_what_is_there(workdir, [path.name for path in workdirs])
    return {path.name: read_json(path / "results.json", headline=dict) for path in workdirs}


def begun(workdir: Path, first: int, count: int) -> directory.Begun:
    """Returns the progress of the seeds `first`, `first + 1`, …: that of the least advanced run."""
    each = [directory.begun(_directory(workdir, first + i)) for i in range(count)]
    return directory.Begun(None, all(one.started for one in each))


def _directory(workdir: Path, seed: int) -> Path:
    return workdir / f"seed={seed}"


def _is_complete(experiment: Experiment, workdir: Path) -> bool:
    if not (workdir / "results.json").exists():
        return False
    directory.require_same(workdir, experiment)
    newest = newest_step(workdir)
    resume.require_not_past(workdir, newest, experiment.num_steps)
    return newest == experiment.num_steps


def _steps(experiment: Experiment, workdir: Path) -> set[int]:
    with Checkpoints(workdir, keep=experiment.keep_checkpoints) as checkpoints:
        return set(checkpoints.steps())


def _train(runs: Sequence[tuple[Experiment, Path]], stack: ExitStack) -> None:
    """Restores the newest common step, or the initial states, and trains to the end."""
    common = max(set.intersection(*(_steps(*x) for x in runs)), default=0)
    first = runs[0][0]
    shapes = first.shapes
    empty = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes["window"])
    members, trees = [], []
    for experiment, workdir in runs:
        writer = RunWriter(experiment, workdir)
        members.append(loop.Member(experiment, writer, f"{workdir.name}, "))
        saved = writer.open(stack, last=common)
        trees.append(saved or {"state": experiment.init_state(), "window": empty})
    if len({int(tree["state"].step) for tree in trees}) > 1:
        raise UsageError("the seeds have no readable checkpoints of the same step")
    data = parallel.replicate(stacked_data([experiment for experiment, _ in runs]), first.devices)
    program = loop.Program(
        members, compile_steps(first), lambda step: nullcontext(data), mapped=True
    )
    loop.run(program, stacked(trees), stacked([empty] * len(runs)))
    loop.prune(members)
    for member in members:
        member.writer.finish()


def compile_steps(experiment: Experiment) -> parallel.TrainSteps:
    """Compiles the steps of several seeds; arrays have a leading axis of seeds."""
    step = jax.vmap(experiment.train_step, in_axes=(0, _AXES))
    return parallel.compile_steps(step, experiment.devices)


def stacked_data(experiments: Sequence[Experiment]) -> TrainingData:
    """Returns one copy of the images, and each seed's split and labels."""
    each = [experiment.data() for experiment in experiments]
    return TrainingData(
        each[0].images, *(np.stack(part) for part in list(zip(*each, strict=True))[1:])
    )


def stacked(trees: Sequence[PyTree]) -> Any:
    """Stacks trees of host arrays into one, whose arrays have a leading axis of seeds."""
    return jax.tree.map(lambda *leaves: np.stack(leaves), *trees)
