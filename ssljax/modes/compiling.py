"""`--mode=compile`: what a recipe needs on chips that are not there."""

from pathlib import Path

from ssljax import paths
from ssljax.errors import UsageError
from ssljax.flags import Command
from ssljax.storage import files, runs


def compile_(command: Command) -> None:
    config, topology = command.config(), command.require("topology")
    output = Path(command.output) if command.output else None
    if output:
        _require_free(output, overwrite=command.overwrite)

    from ssljax.ahead import command as ahead
    from ssljax.data import stand_ins

    found = ahead.compile_recipe(
        config,
        topology,
        name=command.recipe_name,
        shape=stand_ins.parse(command.data_shape),
        largest=command.fit,
        say=lambda line: print(line, flush=True),
    )
    if output:
        output.parent.mkdir(parents=True, exist_ok=True)
        files.write_json(output, found)
        print(f"wrote {output}")


def _require_free(output: Path, *, overwrite: bool) -> None:
    if output.is_dir() or (output.exists() and not overwrite):
        raise UsageError(f"--output {output} exists; --overwrite replaces a file")
    runs.require_none(output, "--output")
    paths.require_writable(output.parent, "--output")
