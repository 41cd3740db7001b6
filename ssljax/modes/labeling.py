"""`--mode=predict`, `label_next`, `add_labels` and `label_errors`: from photos to labels."""

from pathlib import Path

import ml_collections

from ssljax.errors import UsageError
from ssljax.flags import Command


def predict(command: Command) -> None:
    from ssljax import evaluation
    from ssljax.inference import commands
    from ssljax.storage import remote

    workdir, images = remote.opened(command.require("workdir")), command.require("images")
    evaluation.prepare(workdir, command.overrides)
    text = commands.predict(
        workdir,
        images,
        Path(command.output or workdir / "predictions"),
        weights=command.weights,
        max_error=command.max_error,
        logit_adjustment=command.logit_adjustment,
        overwrite=command.overwrite,
        given=command.overrides,
    )
    print(text)


def label_next(command: Command) -> None:
    from ssljax.inference import commands

    workdirs, config = _runs_or_recipe(command)
    text = commands.choose(
        workdirs,
        config,
        Path(
            command.output or workdirs[0] / "label_next" if workdirs else command.require("output")
        ),
        budget=command.require("budget"),
        strategy=command.strategy,
        overwrite=command.overwrite,
        given=[] if config else command.overrides,
    )
    print(text)


def add_labels(command: Command) -> None:
    from ssljax.inference import commands

    workdirs, config = _runs_or_recipe(command)
    if len(workdirs) > 1:
        raise UsageError(f"--workdir={command.workdir} names several runs; allowed: one")
    text = commands.extend_split(
        workdirs[0] if workdirs else None,
        config,
        Path(command.require("labels")),
        Path(command.require("output")),
        overwrite=command.overwrite,
        given=[] if config else command.overrides,
    )
    print(text)


def label_errors(command: Command) -> None:
    from ssljax import evaluation
    from ssljax.inference import commands
    from ssljax.storage import remote

    workdir = remote.opened(command.require("workdir"))
    evaluation.prepare(workdir, command.overrides)
    text = commands.list_label_errors(
        workdir,
        Path(command.output or workdir / "label_errors"),
        weights=command.weights,
        overwrite=command.overwrite,
        given=command.overrides,
    )
    print(text)


def _runs_or_recipe(command: Command) -> tuple[list[Path], ml_collections.ConfigDict | None]:
    """Returns the runs of --workdir or, if there is none yet, the recipe of --config."""
    if (command.workdir is None) == (command.recipe is None):
        raise UsageError(f"--mode={command.mode} needs --workdir or --config, one of them")
    if command.workdir is None:
        return [], command.config()

    from ssljax import evaluation
    from ssljax.storage import remote

    workdirs = [remote.opened(part) for part in command.workdir.split(",")]
    evaluation.prepare(workdirs[0], command.overrides)
    return workdirs, None
