"""Several seeds of one recipe in one program: each step is the ordinary one, mapped over the seeds.

Every seed leaves an ordinary run directory, `<workdir>/seed=<seed>`. What a seed computes is what
its run alone computes, up to the order of sums: convolutions of several networks at once are
grouped ones. A dozen tiny steps agree to 1e-6 (`tests/training/test_seeds.py`); over a long run the
differences grow, as they do between two machines.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from signal import Signals
from typing import Any, NamedTuple

import jax
import numpy as np

from ssljax import evaluate
from ssljax.errors import Interrupted
from ssljax.files import write_json
from ssljax.recipe import Recipe
from ssljax.training import checkpoint, loop, metrics, parallel, record
from ssljax.training.step import Data

PyTree = Any
_OWN = Data(images=None, labeled=0, labels=0, unlabeled=0, hidden=0)  # type: ignore[arg-type]


class _Seed(NamedTuple):
    recipe: Recipe
    workdir: Path
    checkpoints: checkpoint.Checkpoints


def train(recipes: Sequence[Recipe], workdir: Path) -> dict[str, dict[str, Any]]:
    """Trains the recipes of `recipe.build_seeds`, resuming what is there.

    Seeds that are complete are left alone; the others go on together from the newest step that
    each of them has saved.

    Returns:
      What each `results.json` holds, by the name of its directory.

    Raises:
      UsageError, RunError, Interrupted: as `loop.train`; an error of one seed stops all.
    """
    checkpoint.require_no_run(workdir)
    workdirs = [workdir / f"seed={recipe.seed}" for recipe in recipes]
    for recipe, own in zip(recipes, workdirs, strict=True):
        checkpoint.open_directory(own, recipe.config, recipe.split, recipe.dataset)
    with ExitStack() as contexts:
        seeds = []
        for recipe, own in zip(recipes, workdirs, strict=True):
            opened = contexts.enter_context(
                checkpoint.Checkpoints(own, keep=recipe.keep_checkpoints)
            )
            if opened.newest() != recipe.num_steps:
                contexts.enter_context(record.noting_failure(own))
                seeds.append(_Seed(recipe, own, opened))
        if seeds:
            _train(seeds)
    results = {}
    for own in workdirs:
        results[own.name] = evaluate.results(metrics.read_rows(own / "metrics.jsonl"))
        write_json(own / "results.json", results[own.name])
    return results


def _train(seeds: Sequence[_Seed]) -> None:
    """Restores the newest common step, or the initial states, and goes on."""
    shapes = seeds[0].recipe.shapes()
    empty = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes["window"])
    common = set.intersection(*(set(seed.checkpoints.steps()) for seed in seeds))
    if common:
        saved = [seed.checkpoints.restore(max(common), shapes) for seed in seeds]
        print(f"resuming {len(seeds)} seeds after step {max(common)}")
    else:
        saved = [{"state": seed.recipe.init_state(), "window": empty} for seed in seeds]
    step = max(common, default=0)
    with ExitStack() as contexts:
        logs = [
            contexts.enter_context(metrics.MetricsLog(seed.workdir, step=step)) for seed in seeds
        ]
        for seed, log in zip(seeds, logs, strict=True):
            record.begin(seed.recipe, seed.workdir, log, step=step)
        _loop(seeds, stack(saved), stack([empty] * len(seeds)), logs, step)


def _loop(
    seeds: Sequence[_Seed],
    saved: dict[str, Any],
    empty: PyTree,
    logs: Sequence[metrics.MetricsLog],
    step: int,
) -> None:
    """As `loop._loop`, with an axis of seeds in front of every array."""
    recipe = seeds[0].recipe
    devices = recipe.devices
    state, window = (parallel.replicate(saved[x], devices) for x in ("state", "window"))
    data = parallel.replicate(stacked_data([seed.recipe for seed in seeds]), devices)
    run = make_run(recipe)
    evaluator = recipe.evaluator()

    def save():
        loop._require_finite(step, state)
        tree = parallel.fetch({"state": state, "window": window})
        for i, seed in enumerate(seeds):
            seed.checkpoints.save(step, jax.tree.map(lambda x, i=i: x[i], tree))

    with loop._stop_signal() as stop, loop._Progress(recipe, step, data) as progress:
        while step < recipe.num_steps:
            boundary = loop._next_boundary(recipe, step)
            count = min(recipe.steps_per_run, boundary - step)
            state, window = run(state, window, data, count)
            step += count
            progress.advance(count)
            if step == boundary:
                means, rates = parallel.fetch(window), progress.rates()
                window = parallel.replicate(empty, devices)
                losses = []
                evaluated = step % recipe.eval_every == 0 or step == recipe.num_steps
                for i, (seed, log) in enumerate(zip(seeds, logs, strict=True)):
                    own = jax.tree.map(lambda x, i=i: x[i], means)
                    row = {"step": step, **metrics.summarize(own), **rates}
                    losses.append(row["loss/total"])
                    if evaluated:
                        one = jax.tree.map(lambda x, i=i: x[:, i], state)
                        row |= _evaluate(seed, evaluator, one, row, progress)
                    log.write(row)
                if evaluated:
                    save()
                progress.report({"step": step, "loss/total": float(np.mean(losses)), **rates})
            if stop.signum and step < recipe.num_steps:
                save()
                name = Signals(stop.signum).name
                raise Interrupted(stop.signum, f"{name}: saved after step {step}")


def _evaluate(seed, evaluator, state, row, progress):
    """Scores of one seed's state, replicated; leaves its pictures and predictions."""
    step = row["step"]
    loop._require_finite(step, state, row["loss/total"])
    scores = evaluate.evaluate_state(seed.recipe, evaluator, state)
    progress.write(f"{seed.workdir.name}, step {step}: {evaluate.describe(scores)}")
    loop._draw_augmentation(seed.recipe, state, seed.workdir)
    record.write_predictions(seed.recipe, state, seed.workdir, step=step)
    return scores


def make_run(recipe: Recipe) -> parallel.Run:
    """The compiled steps of several seeds, whose arrays have an axis of seeds in front."""
    step = jax.vmap(recipe.train_step, in_axes=(0, _OWN))
    return parallel.make_run(step, recipe.devices)


def stacked_data(recipes: Sequence[Recipe]) -> Data:
    """One copy of the images, and each seed's split and labels."""
    each = [recipe.data() for recipe in recipes]
    return Data(each[0].images, *(np.stack(part) for part in list(zip(*each, strict=True))[1:]))


def stack(trees: Sequence[PyTree]) -> Any:
    """Trees of host arrays -> one, whose arrays have an axis of seeds in front."""
    return jax.tree.map(lambda *leaves: np.stack(leaves), *trees)
