"""`--mode=probe`: the accuracy of classifiers on frozen features with few labels."""

from pathlib import Path

from ssljax.errors import UsageError
from ssljax.flags import Command


def probe(command: Command) -> None:
    config = command.config()

    from ssljax import recipe
    from ssljax.probe import command as probes

    workdir = Path(command.workdir or f"runs/{command.recipe_name}/probe")
    probes.require_free(workdir)
    recipe.prepare(config, join=False)
    print(probes.probe(config, workdir, labels=_numbers(command.label_counts), sets=command.sets))
    print(f"wrote {workdir}/probe.json and {workdir}/probe.csv")


def _numbers(values: list[str]) -> tuple[int, ...]:
    if not all(value.strip().isdecimal() for value in values):
        raise UsageError(
            f"--label_counts={','.join(values)}; allowed: numbers of labelled images, as 40,250"
        )
    return tuple(map(int, values))
