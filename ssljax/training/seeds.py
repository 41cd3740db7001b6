"""Several seeds of one recipe in one program: each step is the ordinary one, mapped over the seeds.

Every seed leaves an ordinary run directory, `<workdir>/seed=<seed>`. What a seed computes is what
its run alone computes, up to the order of sums: convolutions of several networks at once are
grouped ones. A dozen tiny steps agree to 1e-6 (`tests/training/test_seeds.py`); over a long run the
differences grow, as they do between two machines.
"""

from collections.abc import Sequence
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ssljax.checkpoints import Checkpoints
from ssljax.errors import UsageError
from ssljax.files import read_json, telling_of_full_disk
from ssljax.recipe import Recipe
from ssljax.training import loop, parallel, run_directory
from ssljax.training.record import Record
from ssljax.training.step import Data

PyTree = Any
_OWN = Data(images=None, labeled=0, labels=0, unlabeled=0, hidden=0)  # type: ignore[arg-type]


def train(recipes: Sequence[Recipe], workdir: Path) -> dict[str, dict[str, Any]]:
    """Trains the recipes of `recipe.build_seeds`, resuming what is there.

    Seeds that are complete are left alone; the others go on together from the newest step that
    each of them has saved.

    Returns:
      What each `results.json` holds, by the name of its directory.

    Raises:
      UsageError, RunError, Interrupted: as `loop.train`; an error of one seed stops all.
    """
    run_directory.require_no_run(workdir)
    workdirs = [workdir / f"seed={recipe.seed}" for recipe in recipes]
    left = [x for x in zip(recipes, workdirs, strict=True) if not _is_complete(*x)]
    if left:
        with telling_of_full_disk(workdir), ExitStack() as stack:
            _train(left, stack)
    return {own.name: read_json(own / "results.json") for own in workdirs}


def _is_complete(recipe: Recipe, workdir: Path) -> bool:
    if not (workdir / "results.json").exists():
        return False
    run_directory.require_same_run(workdir, recipe.config, recipe.split)
    return recipe.num_steps in _steps(recipe, workdir)


def _steps(recipe: Recipe, workdir: Path) -> set[int]:
    with Checkpoints(workdir, keep=recipe.keep_checkpoints) as checkpoints:
        return set(checkpoints.steps())


def _train(runs: Sequence[tuple[Recipe, Path]], stack: ExitStack) -> None:
    """Restores the newest common step, or the initial states, and goes on to the results."""
    common = max(set.intersection(*(_steps(*x) for x in runs)), default=0)
    first = runs[0][0]
    shapes = first.shapes
    empty = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes["window"])
    members, trees = [], []
    for recipe, workdir in runs:
        record = Record(recipe, workdir)
        members.append(loop.Member(recipe, record, f"{workdir.name}, "))
        saved = record.open(stack, last=common)
        trees.append(saved or {"state": recipe.init_state(), "window": empty})
    if len({int(tree["state"].step) for tree in trees}) > 1:
        raise UsageError("the seeds' checkpoints that can be read are of different steps")
    data = parallel.replicate(stacked_data([recipe for recipe, _ in runs]), first.devices)
    program = loop.Program(members, make_run(first), lambda step: nullcontext(data), mapped=True)
    loop.run(program, stacked(trees), stacked([empty] * len(runs)))
    for member in members:
        member.record.finish()


def make_run(recipe: Recipe) -> parallel.Run:
    """The compiled steps of several seeds, whose arrays have an axis of seeds in front."""
    step = jax.vmap(recipe.train_step, in_axes=(0, _OWN))
    return parallel.make_run(step, recipe.devices)


def stacked_data(recipes: Sequence[Recipe]) -> Data:
    """One copy of the images, and each seed's split and labels."""
    each = [recipe.data() for recipe in recipes]
    return Data(each[0].images, *(np.stack(part) for part in list(zip(*each, strict=True))[1:]))


def stacked(trees: Sequence[PyTree]) -> Any:
    """Trees of host arrays -> one, whose arrays have an axis of seeds in front."""
    return jax.tree.map(lambda *leaves: np.stack(leaves), *trees)
