"""The command line: `launch.py`, `ssljax` and `python -m ssljax`. `flags.py` has the flags."""

import shlex
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path

from ssljax import flags, interrupts, log, overrides, recipe_files
from ssljax.errors import Interrupted, RunError, UsageError
from ssljax.flags import Command
from ssljax.log import LOG
from ssljax.storage import files


def run() -> None:
    """The entry point of the scripts: ends the process with the command's exit code."""
    log.outlive_readers()
    sys.exit(main(sys.argv[1:], restart=True))


def main(arguments: Sequence[str], *, restart: bool = False) -> int:
    """Runs one command, given without the program's name; returns its exit code.

    Args:
      restart: whether a training process may start itself again, with huge pages.
    """
    log.show_lines()
    try:
        command = flags.parse(list(arguments))
        if command is None:
            print(flags.help_text())
            return 0
        if restart and command.mode == "train" and command.sweep is None:
            from ssljax.training import huge_pages

            huge_pages.restart()
        # Training handles signals itself, once there is something to save.
        with nullcontext() if command.mode == "train" else interrupts.handled(interrupts.end):
            _RUN[command.mode](command)
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except RunError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        if (text := files.describe(error)) is None:
            raise
        print(f"error: {text}", file=sys.stderr)
        return 1
    except Interrupted as stop:
        print(f"{stop}; run the same command again to continue", file=sys.stderr)
        return 128 + stop.signum
    except KeyboardInterrupt as stop:
        signum = stop.signum if isinstance(stop, interrupts.Ended) else signal.SIGINT
        print(f"{signal.Signals(signum).name}: there was nothing to save", file=sys.stderr)
        return 128 + signum
    return 0


def _train(command: Command) -> None:
    if command.sweep is not None:
        return _sweep(command)
    config = command.config()

    from ssljax import experiment, recipe
    from ssljax.run import directory, loop, results, seeds
    from ssljax.storage import remote
    from ssljax.training import hosts

    workdir = command.run_directory(config)
    recipe.prepare(config)
    with hosts.abort_together():
        batch_size = hosts.broadcast_from_first(
            lambda: directory.recorded_batch_size(remote.opened(workdir))
        )
        first, *others = recipe.build_seeds(config, batch_size=batch_size)
        if hosts.is_first():
            LOG.info("%s\nrun directory: %s", experiment.describe(first), workdir)
        if others:
            if remote.is_remote(workdir):
                raise UsageError(f"--workdir={workdir} is remote; allowed with num_seeds: a path")
            LOG.info("%d seeds in one program, each in a directory of its own", 1 + len(others))
            for name, found in seeds.train([first, *others], Path(workdir)).items():
                print(f"{name}: {results.headline(found)}")
            return
        home = workdir if remote.is_remote(workdir) else ""
        found = loop.train(first, remote.local(workdir), home=home)
        if hosts.is_first():
            print(results.headline(found))


def _sweep(command: Command) -> None:
    """Runs the points of `--sweep`, prints them, or runs one; finished ones are skipped."""
    from ssljax import sweep
    from ssljax.run import resume
    from ssljax.storage import lock

    command.config()
    points = (
        overrides.listed(_get_sweep(command))
        if command.sweep == "config"
        else overrides.grid(command.sweep)
    )
    runs = dict(zip(overrides.names(points), points, strict=True))
    root = Path(command.workdir or f"runs/{command.recipe_name}/sweep")
    resume.require_no_run(root)
    kept = _without(command, "sweep", "sweep_index", "sweep_list", "workdir")
    commands, finished = {}, []
    for name, point in runs.items():
        more = [f"{knob}={value}" for knob, value in point.items()]
        if sweep.is_finished(root / name, command.config(more).to_dict()):
            finished.append(name)
        commands[name] = [
            *_program(command), *kept, *(f"--config.{override}" for override in more),
            f"--workdir={root / name}",
        ]  # fmt: skip
    if command.sweep_list:
        for number, (name, line) in enumerate(commands.items()):
            done = " (finished)" if name in finished else ""
            print(f"{number}  {name}{done}\n   {shlex.join(line)}")
        return
    if (index := command.sweep_index) is not None:
        if not 0 <= index < len(commands):
            raise UsageError(f"--sweep_index is {index}; allowed: from 0 to {len(commands) - 1}")
        commands = dict([list(commands.items())[index]])
    refusal = f"workdir {root} is in use: another sweep runs there; wait for its end"
    # Points that run alone, of schedulers, share the directory; each has the lock of its own run.
    with nullcontext() if index is not None else lock.held_directory(root.resolve(), refusal):
        sweep.run(commands, finished=finished)
    print(f"report: {shlex.join([*_program(command), '--mode=report', f'--workdir={root}'])}")


def _get_sweep(command: Command) -> list[dict[str, object]]:
    path = recipe_files.recipe_file((command.recipe or "").partition(":")[0])
    get_sweep = getattr(recipe_files.load_module(path), "get_sweep", None)
    if get_sweep is None:
        raise UsageError(f"--sweep=config needs a function get_sweep() in {path}")
    return get_sweep()


def _program(command: Command) -> list[str]:
    """How this process was started, without its flags."""
    count, started = len(command.arguments), sys.orig_argv
    if count and started[-count:] == command.arguments and len(started) > count:
        return [sys.executable, *started[1:-count]]
    return [sys.executable, "-m", "ssljax"]


def _without(command: Command, *names: str) -> list[str]:
    """The arguments but for some flags: `--name=value`, `--name value` or, of bools, `--name`."""
    kept, left = [], iter(command.arguments)
    for argument in left:
        name, equals, _ = argument.lstrip("-").partition("=")
        name = name.removeprefix("no") if name.removeprefix("no") in names else name
        if name not in names or not argument.startswith("-"):
            kept.append(argument)
        elif not equals and not command.flags[name].boolean:
            next(left, None)
    return kept


def _evaluate(command: Command) -> None:
    from ssljax import evaluation
    from ssljax.run import metrics, results
    from ssljax.storage import remote

    workdir = remote.opened(command.require("workdir"))
    evaluation.prepare(workdir, command.overrides)
    found = evaluation.evaluate_directory(workdir, command.overrides)
    if not found.is_own:
        LOG.info("note: %s has other images than the run was trained with", found.name)
    print(f"step {found.step}: {results.describe(found.scores)}")
    if not found.is_own:
        return
    rows = metrics.read_rows(workdir / "metrics.jsonl")
    print(results.headline(results.results(rows)))


def _report(command: Command) -> None:
    from ssljax.report import report

    paths = [Path(path) for path in command.require("workdir").split(",")]
    if command.output is None and len(paths) > 1:
        raise UsageError("--output is missing, which several directories in --workdir need")
    output = Path(command.output or paths[0])
    options = {"published": command.reference == "paper", "oracle": command.oracle}
    if command.follow:
        print(f"writing {output}/report.html whenever a run goes on, until Ctrl-C", flush=True)
        report.follow(paths, output, say=lambda text: print(f"\n{text}", flush=True), **options)
    else:
        print(report.write(paths, output, **options))
    print(f"wrote {output}/report.html, .md, .csv, .tex and report_figures/")


def _export(command: Command) -> None:
    if command.require("format") == "npu_bundle":
        return _export_bundle(command)
    from ssljax.export import export
    from ssljax.storage import remote

    export.export(
        remote.opened(command.require("workdir")),
        Path(command.require("output")),
        format=command.format,
        weights=command.weights,
        input_dtype=command.input,
        batch_sizes=_batch_sizes(command.batch_sizes),
        opset=command.opset,
        limit=command.limit,
        overwrite=command.overwrite,
        given=command.overrides,
    )


def _export_bundle(command: Command) -> None:
    """Of `--config`, from its initial weights, or of `--workdir`, from its newest checkpoint."""
    from ssljax.export import npu_export
    from ssljax.storage import remote

    output = Path(command.require("output"))
    if command.workdir is None:
        npu_export.of_recipe(command.config(), output, overwrite=command.overwrite)
    elif command.recipe is not None:
        raise UsageError("--config and --workdir are given; allowed: one of them")
    else:
        workdir = remote.opened(command.workdir)
        npu_export.of_run(workdir, output, command.overrides, overwrite=command.overwrite)
    print(f"wrote {output}: train it with python run.py --device=npu; see docs/npu.md")


def _import_bundle(command: Command) -> None:
    from ssljax.export import npu_import

    bundle, workdir = Path(command.require("bundle")), Path(command.require("workdir"))
    output = Path(command.output) if command.output else None
    step = npu_import.import_run(bundle, workdir, output=output, given=command.overrides)
    print(f"wrote {workdir}: step {step} of the bundle's runner")


def _batch_sizes(values: list[str]) -> tuple[int, ...]:
    if not all(value.strip().isdigit() and int(value) for value in values):
        raise UsageError(f"--batch_sizes={','.join(values)} is no list of numbers from 1 up")
    return tuple(int(value) for value in values)


def _show_data(command: Command) -> None:
    config = command.config()

    from ssljax import parts
    from ssljax.data import overview, split_file
    from ssljax.run import directory
    from ssljax.storage.files import write_json

    data, split = parts.load_data(config)
    workdir = Path(command.workdir or f"runs/data/{command.default_name(config)}")
    if (workdir / "config.json").exists():
        raise UsageError(f"workdir {workdir} holds a run; --mode=data needs another directory")
    record = split_file.record(split)
    directory.require_ours(workdir / "split.json", record)
    if (workdir / "labelled.png").exists() and not (workdir / "split.json").exists():
        raise UsageError(f"{workdir}/labelled.png is there already; use another workdir")
    workdir.mkdir(parents=True, exist_ok=True)
    write_json(workdir / "split.json", record)
    overview.contact_sheet(data, split).save(workdir / "labelled.png")
    print(f"{config.dataset}\n{overview.table(data, split)}")
    print(f"wrote {workdir}/split.json and {workdir}/labelled.png")


def _show_views(command: Command) -> None:
    config = command.config()

    import jax
    import numpy as np
    from PIL import Image

    from ssljax import recipe
    from ssljax.augment import contact_sheet

    recipe.prepare(config, join=False)
    experiment = recipe.build(config)
    images = experiment.dataset.pick(np.arange(min(command.count, len(experiment.dataset.labels))))
    sheet = contact_sheet.draw(jax.random.key(experiment.seed), images, experiment.augmentation)
    # Beside the run directory: inside, it would keep a run from starting there.
    workdir = Path(command.run_directory(config))
    path = workdir.with_name(workdir.name + "_augment.png")
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(sheet).save(path)
    print(f"wrote {path}: {len(images)} images, and each operation at increasing magnitude")


def _list_recipes(command: Command) -> None:
    """The recipes, or with `--config` its knobs and their values."""
    if command.recipe is not None:
        for knob, value in overrides.flatten(command.config().to_dict()).items():
            print(f"{knob} = {value!r}")
        return
    for name, path in recipe_files.shipped().items():
        print(f"{name:<28} {recipe_files.summary(path)}")


_RUN: dict[str, Callable[[Command], None]] = {
    "train": _train,
    "eval": _evaluate,
    "report": _report,
    "export": _export,
    "import_npu": _import_bundle,
    "data": _show_data,
    "augment": _show_views,
    "recipes": _list_recipes,
}
