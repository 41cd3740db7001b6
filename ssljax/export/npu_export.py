"""`--format=npu_bundle`: exports a recipe or a run as a bundle."""

from collections.abc import Sequence
from pathlib import Path

import ml_collections

from ssljax import recipe, recorded
from ssljax.experiment import Experiment
from ssljax.export import npu_bundle
from ssljax.run import directory as run_directory
from ssljax.run import resume
from ssljax.storage import output_directory, runs
from ssljax.training.state import TrainState


def of_recipe(config: ml_collections.ConfigDict, output: Path, *, overwrite: bool) -> None:
    """Writes a bundle that starts from a recipe's initial weights.

    Raises:
      UsageError: a part of the recipe is not supported by the runner; the message names it.
    """
    output_directory.require_free(output, overwrite=overwrite)
    recipe.prepare(config, join=False)
    _write(recipe.build(config), output, None, overwrite=overwrite)


def of_run(workdir: Path, output: Path, given: Sequence[str] = (), *, overwrite: bool) -> None:
    """Writes a bundle that continues from a run's newest checkpoint.

    Args:
      given: overrides `<knob>=<value>`: knobs that may change on resuming, the data's location, and
        user code that the run names.

    Raises:
      UsageError: as for `of_recipe`; or the run has no checkpoint, or its data have changed.
    """
    output_directory.require_free(output, overwrite=overwrite)
    runs.require_one(workdir)
    config = recorded.of_run(
        workdir, given, allowed=recorded.DATA | resume.RESUMABLE, code=recorded.CODE
    )
    recipe.prepare(config, join=False)
    experiment = recipe.build(config, started=True)
    run_directory.require_same(workdir, experiment)
    state = run_directory.newest_state(
        workdir,
        experiment.shapes,
        keep=experiment.keep_checkpoints,
        fallback=experiment.fallback,
    )
    resume.require_not_past(workdir, int(state.step), experiment.num_steps)
    _write(experiment, output, state, overwrite=overwrite)


def _write(
    experiment: Experiment, output: Path, state: TrainState | None, *, overwrite: bool
) -> None:
    with output_directory.replaced(output, overwrite=overwrite) as partial:
        npu_bundle.write(experiment, partial, state=state)
