"""`--mode=compile`: what a recipe needs on chips that are not there."""

from pathlib import Path

from ssljax.flags import Command
from ssljax.storage import files, output_directory


def compile_(command: Command) -> None:
    config, topology = command.config(), command.require("topology")
    output = Path(command.output) if command.output else None
    if output:
        output_directory.require_free_file(output, overwrite=command.overwrite)

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
