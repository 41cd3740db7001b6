"""The command line: `launch.py`, `ssljax` and `python -m ssljax`. `flags.py` defines the flags."""

import os
import shlex
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import ml_collections

from ssljax import exits, flags, interrupts, log, overrides, paths, recipe_files, usage
from ssljax.errors import UsageError
from ssljax.flags import Command
from ssljax.log import LOG
from ssljax.modes import compiling, labeling, probing
from ssljax.storage import files, flock


def run() -> None:
    """The entry point of the scripts; exits with the command's exit code."""
    log.outlive_readers()
    sys.exit(main(sys.argv[1:], restart=True))


def main(arguments: Sequence[str], *, restart: bool = False) -> int:
    """Runs one command and returns its exit code.

    Args:
      arguments: the command line without the program's name.
      restart: whether a training process may restart itself with huge pages enabled.
    """
    log.show_lines()
    return exits.code_of(lambda: _dispatch(arguments, restart))


def _dispatch(arguments: Sequence[str], restart: bool) -> None:
    command = flags.parse(list(arguments))
    if command is None:
        print(usage.help_text())
        return
    if restart and command.mode == "train" and command.sweep is None:
        from ssljax.training import huge_pages

        huge_pages.restart()
    flock.require()
    # Training installs its own signal handlers once there is something to save.
    with nullcontext() if command.mode == "train" else interrupts.handled(interrupts.end):
        _RUN[command.mode](command)


def _train(command: Command) -> None:
    if command.sweep is not None:
        return _sweep(command)
    config = command.config()

    from ssljax import description, generations, recipe, trained
    from ssljax.inference import calibrate
    from ssljax.run import evaluate, results, seeds
    from ssljax.storage import remote
    from ssljax.training import hosts

    workdir = command.run_directory(config)
    recipe.prepare(config)
    with hosts.abort_together():
        begun = hosts.broadcast_from_first(lambda: _open(workdir, config))
        first, *others = recipe.build_seeds(config, **begun)
        if hosts.is_first():
            LOG.info("%s\nrun directory: %s", description.describe(first), workdir)
        if others:
            if remote.is_remote(workdir):
                raise UsageError(f"--workdir={workdir} is remote; allowed with num_seeds: a path")
            LOG.info("%d seeds in one program, each in its own directory", 1 + len(others))
            for name, found in seeds.train([first, *others], Path(workdir)).items():
                print(f"{name}: {results.headline(found, evaluate.uneven_parts(first))}")
            return
        last, run, found = generations.train(first, workdir)
        if hosts.is_first():
            model = trained.load(run, model=last.config["model"])
            calibrate.store(model, last.dataset, last.split)
            print(results.headline(found, evaluate.uneven_parts(last)))


def _open(workdir: str, config: ml_collections.ConfigDict) -> dict[str, Any]:
    """Returns the progress of the run or of all seeds; the directory must be writable."""
    from ssljax.run import directory, seeds
    from ssljax.storage import remote

    local = remote.opened(workdir)
    paths.require_writable(local, "--workdir")
    if config.num_seeds > 1:
        return seeds.begun(local, config.seed, config.num_seeds)._asdict()
    return directory.begun(local)._asdict()


def _sweep(command: Command) -> None:
    """Runs all points of `--sweep`, lists them, or runs one; finished points are skipped."""
    from ssljax import sweep
    from ssljax.run import resume
    from ssljax.storage import lock

    command.config()
    points = (
        overrides.own_grid(str(command.recipe))
        if command.sweep == "config"
        else overrides.grid(command.sweep)
    )
    runs = dict(zip(overrides.names(points), points, strict=True))
    root = Path(command.workdir or f"runs/{command.recipe_name}/sweep")
    resume.require_no_run(root)
    kept = command.again_without("sweep", "sweep_index", "sweep_list", "workdir")
    commands, finished = {}, []
    for name, point in runs.items():
        more = [f"{knob}={value}" for knob, value in point.items()]
        if sweep.is_finished(root / name, command.config(more).to_dict()):
            finished.append(name)
        commands[name] = [
            *kept, *(f"--config.{override}" for override in more),
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
    paths.require_writable(root, "--workdir")
    refusal = f"workdir {root} is in use: another sweep runs there; wait for its end"
    # Points started singly by a scheduler share the directory; each run holds its own lock.
    with nullcontext() if index is not None else lock.held_directory(root.resolve(), refusal):
        sweep.run(commands, finished=finished)
    print(f"report: {shlex.join([*command.program, '--mode=report', f'--workdir={root}'])}")


def _evaluate(command: Command) -> None:
    from ssljax import evaluation
    from ssljax.run import evaluate, metrics, results
    from ssljax.storage import remote

    workdir = remote.opened(command.require("workdir"))
    evaluation.prepare(workdir, command.overrides)
    found = evaluation.evaluate_directory(workdir, command.overrides)
    if not found.is_own:
        LOG.info("note: %s has other images than the run was trained with", found.name)
    uneven = evaluate.uneven_parts(found)
    print(f"step {found.step}: {results.describe(found.scores, uneven)}")
    if not found.is_own:
        return
    rows = metrics.read_rows(workdir / "metrics.jsonl")
    print(results.headline(results.results(rows), uneven))


def _report(command: Command) -> None:
    from ssljax.report import report

    workdirs = _workdirs(command.require("workdir"))
    if command.output is None and len(workdirs) > 1:
        raise UsageError("--output is missing; several directories in --workdir need it")
    output = Path(command.output or workdirs[0])
    paths.require_writable(output, "--output" if command.output else "--workdir")
    options = {"published": command.reference == "paper", "oracle": command.oracle}
    if command.follow:
        print(f"updating {output}/report.html as runs progress, until Ctrl-C", flush=True)
        say = lambda text: print(f"\n{text}", flush=True)  # noqa: E731
        if not report.follow(workdirs, output, say=say, **options):
            return
    else:
        print(report.write(workdirs, output, **options))
    print(f"wrote {output}/report.html, .md, .csv, .tex and report_figures/")


def _workdirs(given: str) -> list[Path]:
    """Splits `given` at commas, unless a directory has exactly that name."""
    several = [given] if Path(given).exists() else given.split(",")
    return [Path(paths.expand(path, "--workdir")) for path in several]


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
    """Exports `--config` with initial weights, or the newest checkpoint of `--workdir`."""
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
    paths.require_writable(workdir, "--workdir")
    step = npu_import.import_run(bundle, workdir, output=output, given=command.overrides)
    print(f"wrote {workdir}: step {step} of the bundle's runner")


def _batch_sizes(values: list[str]) -> tuple[int, ...]:
    if not all(value.strip().isdecimal() and 0 < int(value) < 2**31 for value in values):
        raise UsageError(f"--batch_sizes={','.join(values)} is not a list of numbers from 1 up")
    return tuple(int(value) for value in values)


def _show_data(command: Command) -> None:
    config = command.config()
    workdir = Path(command.workdir or f"runs/data/{command.default_name(config)}")
    paths.require_writable(workdir, "--workdir")

    from ssljax import parts
    from ssljax.data import check, overview, split_file, splits
    from ssljax.data.datasets import Dataset
    from ssljax.run import directory

    data, split = parts.load_data(config)
    if (workdir / "config.json").exists():
        raise UsageError(f"workdir {workdir} holds a run; --mode=data needs another directory")
    counts = splits.class_counts(data.labels, split, data.num_classes)
    record = split_file.record(split, class_counts=counts, names=data.names())
    directory.require_ours(workdir / "split.json", record)
    if (workdir / "labelled.png").exists() and not (workdir / "split.json").exists():
        raise UsageError(f"{workdir}/labelled.png already exists; use another workdir")
    workdir.mkdir(parents=True, exist_ok=True)
    files.write_json(workdir / "split.json", record)
    files.write_picture(workdir / "labelled.png", overview.contact_sheet(data, split))
    print(f"{config.dataset}\n{overview.table(data, split)}")
    if isinstance(data, Dataset):
        for line in check.lines(data, split):
            print(f"note: {line}")
    print(f"wrote {workdir}/split.json and {workdir}/labelled.png")


def _show_views(command: Command) -> None:
    config = command.config()
    # Written beside the run directory: inside, it would prevent a run from starting there.
    workdir = Path(os.path.abspath(command.run_directory(config)))
    paths.require_writable(workdir.parent, "--workdir")

    import jax
    import numpy as np
    from PIL import Image

    from ssljax import recipe
    from ssljax.augment import contact_sheet

    recipe.prepare(config, join=False)
    experiment = recipe.build(config)
    images = experiment.dataset.pick(np.arange(min(command.count, len(experiment.dataset.labels))))
    sheet = contact_sheet.draw(jax.random.key(experiment.seed), images, experiment.augmentation)
    path = workdir.parent / f"{workdir.name}_augment.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_picture(path, Image.fromarray(sheet))
    print(f"wrote {path}: {len(images)} images, and each operation at increasing magnitude")


def _list_recipes(command: Command) -> None:
    """Lists the recipes, or with `--config` the knobs of one and their values."""
    if command.recipe is not None:
        for knob, value in overrides.flatten(command.config().to_dict()).items():
            print(f"{knob} = {value!r}")
        return
    for name, path in recipe_files.shipped().items():
        print(f"{name:<28} {recipe_files.summary(path)}")


_RUN: dict[str, Callable[[Command], None]] = {
    "train": _train,
    "eval": _evaluate,
    "predict": labeling.predict,
    "label_next": labeling.label_next,
    "add_labels": labeling.add_labels,
    "label_errors": labeling.label_errors,
    "report": _report,
    "export": _export,
    "import_npu": _import_bundle,
    "probe": probing.probe,
    "compile": compiling.compile_,
    "data": _show_data,
    "augment": _show_views,
    "recipes": _list_recipes,
}
