"""The command line: `launch.py`, `ssljax` and `python -m ssljax`. Flags, and one dispatch."""

import dataclasses
import difflib
import re
import shlex
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import ml_collections
from absl import flags

from ssljax import log, overrides
from ssljax.errors import Interrupted, RunError, UsageError
from ssljax.log import LOG

_EXPORTS = ("saved_model", "tf1", "onnx", "npu_bundle")


class Mode(NamedTuple):
    """What `--mode` can be."""

    help: str
    flags: tuple[str, ...]  # that it takes, beside --mode and --config.<knob>
    run: Callable[["Command"], None]


@dataclasses.dataclass(frozen=True)
class Command:
    """A command line, parsed."""

    mode: str
    flags: flags.FlagValues
    overrides: list[str]  # `<knob>=<value>`
    arguments: list[str]  # as given

    def __getattr__(self, name: str) -> Any:
        """The value of a flag."""
        return self.flags[name].value

    def require(self, name: str) -> Any:
        """The value of a flag that the mode cannot do without."""
        value = self.flags[name].value
        if value is None:
            raise UsageError(f"--{name} is missing, which --mode={self.mode} needs")
        return value

    def config(self, more: Sequence[str] = ()) -> ml_collections.ConfigDict:
        """The recipe with the overrides."""
        if self.recipe is None:
            raise UsageError(
                "--config is missing; for example --config=fixmatch_digits (--mode=recipes lists "
                "all recipes)"
            )
        return overrides.load(self.recipe, [*self.overrides, *more])

    @property
    def recipe(self) -> str | None:
        """The recipe's name or file."""
        return self.flags["config"].value

    @property
    def recipe_name(self) -> str:
        """The recipe's name, for directories."""
        return Path((self.recipe or "").partition(":")[0]).stem

    def run_directory(self, config: ml_collections.ConfigDict) -> str:
        """`--workdir`, or its default."""
        return self.workdir or f"runs/{self.default_name(config)}"

    def default_name(self, config: ml_collections.ConfigDict) -> str:
        """`<recipe>/<data set name>`, without separators of paths and URLs."""
        return f"{self.recipe_name}/{config.dataset.replace('/', '_').replace(':', '_')}"


def run() -> None:
    """The entry point of the scripts: ends the process with the command's exit code."""
    sys.exit(main(sys.argv[1:]))


def main(arguments: Sequence[str]) -> int:
    """Runs one command, given without the program's name; returns its exit code."""
    log.show_lines()
    try:
        command = parse(list(arguments))
        if command is None:
            print(help_text())
            return 0
        MODES[command.mode].run(command)
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except RunError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except Interrupted as stop:
        print(f"{stop}; run the same command again to continue", file=sys.stderr)
        return 128 + stop.signum
    except KeyboardInterrupt:  # training notes signals itself
        print("SIGINT: there was nothing to save", file=sys.stderr)
        return 128 + signal.SIGINT
    return 0


# Parsing


def _define() -> flags.FlagValues:
    values = flags.FlagValues()

    def define(kind: Callable[..., Any], name: str, *args: Any, **options: Any) -> None:
        kind(name, *args, flag_values=values, **options)

    define(flags.DEFINE_enum, "mode", "train", list(MODES), "What to do.")
    define(
        flags.DEFINE_string, "config", None,
        "A recipe: its name, or a Python file with a function get_config().",
    )  # fmt: skip
    define(
        flags.DEFINE_string, "workdir", None,
        "The run directory, by default runs/<recipe>/<data set name>.",
    )  # fmt: skip
    define(
        flags.DEFINE_string, "sweep", None,
        "Trains a grid, 'seed=1,2;method_args.threshold=0.9,0.95'; config: the recipe's own.",
    )  # fmt: skip
    define(flags.DEFINE_integer, "sweep_index", None, "Trains one point of the grid, from 0.")
    define(flags.DEFINE_bool, "sweep_list", False, "Prints the grid's points and their commands.")
    define(
        flags.DEFINE_enum, "reference", None, ["paper"],
        "Published rows to report beside the runs'.",
    )  # fmt: skip
    define(flags.DEFINE_bool, "oracle", False, "Reports the best error on the test set too.")
    define(flags.DEFINE_bool, "follow", False, "Reports again whenever a run goes on.")
    define(flags.DEFINE_integer, "count", 8, "How many images are shown.", lower_bound=1)
    define(flags.DEFINE_enum, "format", None, list(_EXPORTS), "What is written.")
    define(flags.DEFINE_string, "output", None, "The directory that is written.")
    define(flags.DEFINE_string, "bundle", None, "The bundle that is read.")
    define(flags.DEFINE_bool, "overwrite", False, "Replaces an output directory that has files.")
    define(flags.DEFINE_enum, "weights", "ema", ["ema", "raw"], "Which weights are exported.")
    define(
        flags.DEFINE_enum, "input", "uint8", ["uint8", "float32"],
        "Type of the exported model's images, 0 to 255.",
    )  # fmt: skip
    define(
        flags.DEFINE_list, "batch_sizes", [],
        "A graph for each, with --format=tf1; by default one graph for any size.",
    )  # fmt: skip
    define(flags.DEFINE_integer, "opset", 17, "Of --format=onnx.", lower_bound=1)
    define(
        flags.DEFINE_integer, "limit", None,
        "Images of the parity report, by default all test images; 0: no report.",
    )  # fmt: skip
    return values


def parse(arguments: list[str]) -> Command | None:
    """A command line, without the program's name; None: it asks for help.

    Raises:
      UsageError: a flag does not exist, is of another mode, or has a value that is not allowed.
    """
    if any(re.fullmatch(r"--?(help\w*|h)(=.*)?", argument) for argument in arguments):
        return None
    rest, given = _split(arguments)
    values = _define()
    try:
        positional = values(["ssljax", *rest])[1:]
    except flags.UnrecognizedFlagError as error:
        raise UsageError(_unknown_flag(error.flagname, values)) from error
    except (flags.Error, TypeError, ValueError) as error:
        raise UsageError(" ".join(str(error).split())) from error
    if positional:
        raise UsageError(
            f"argument {positional[0]!r} is not a flag; flags are written --name=value"
        )
    command = Command(str(values["mode"].value), values, given, arguments)
    _check_mode(command)
    return command


def _split(arguments: list[str]) -> tuple[list[str], list[str]]:
    """The flags, and the overrides: `--config.<knob>=<value>` or `--config.<knob> <value>`."""
    rest, given, left = [], [], list(arguments)
    while left:
        argument = left.pop(0)
        match = re.match(r"--?(no)?config\.([^=]*)(=(.*))?$", argument, re.DOTALL)
        if not match:
            rest.append(argument)
            continue
        negated, knob, equals, value = match.groups()
        if not equals:
            if negated or not left or left[0].startswith("--"):
                value = "false" if negated else "true"  # of a bool
            else:
                value = left.pop(0)
        given.append(f"{knob}={value}")
    return rest, given


def _unknown_flag(name: str, values: flags.FlagValues) -> str:
    from ssljax.defaults import get_config

    knobs = overrides.flatten(get_config().to_dict())
    if name.replace("-", "_") in knobs or name.startswith(("method_args.", "model_args.")):
        return f"--{name} does not exist; did you mean --config.{name.replace('-', '_')}?"
    near = difflib.get_close_matches(name, list(values), n=1, cutoff=0.6)
    if near:
        return f"--{name} does not exist; did you mean --{near[0]}?"
    if difflib.get_close_matches(name, knobs, n=1, cutoff=0.7):
        return (
            f"--{name} does not exist; did you mean --config.{overrides.nearest_knob(name, knobs)}?"
        )
    return f"--{name} does not exist; --help lists the flags"


def _check_mode(command: Command) -> None:
    """Refuses a flag of another mode."""
    mode = command.mode
    allowed = {"mode", *MODES[mode].flags}
    given = [name for name in command.flags if command.flags[name].present]
    if command.overrides and "config" not in given:
        given.append("config")
    for name in given:
        if name not in allowed:
            modes = [other for other, spec in MODES.items() if name in spec.flags]
            raise UsageError(
                f"--{name} is given with --mode={mode}; allowed: --mode={' or '.join(modes)}"
            )
    if command.sweep is None and (command.sweep_list or command.sweep_index is not None):
        raise UsageError("--sweep is missing, which --sweep_list and --sweep_index need")


def help_text() -> str:
    """What `--help` prints."""
    values = _define()
    program = _program_name()
    lines = [
        "Semi-supervised image classification in JAX.",
        "",
        f"  {program} --config=fixmatch_digits --config.num_steps=400 --workdir=runs/first",
        f"  {program} --mode=report --workdir=runs",
        "",
        "--mode=recipes lists the recipes; with --config=<recipe> it lists the recipe's knobs. Any",
        "knob is overridden by --config.<knob>=<value>.",
    ]
    for mode, spec in MODES.items():
        lines += ["", f"--mode={mode}: {spec.help}"]
        for name in spec.flags:
            flag = values[name]
            choices = getattr(flag.parser, "enum_values", None)
            value = "" if flag.boolean else f"=<{'|'.join(choices) if choices else '…'}>"
            lines.append(f"  --{name + value:<32} {flag.help}")
    return "\n".join(lines)


def _program_name() -> str:
    name = Path(sys.argv[0]).name
    return f"python {name}" if name == "launch.py" else "ssljax"


# Modes


def _train(command: Command) -> None:
    if command.sweep is not None:
        return _sweep(command)
    config = command.config()

    from ssljax.training import huge_pages

    huge_pages.restart()
    from ssljax import experiment, recipe
    from ssljax.run import directory, loop, results, seeds
    from ssljax.storage import remote
    from ssljax.training import hosts

    workdir = command.run_directory(config)
    recipe.prepare(config)
    with hosts.abort_together():
        batch_size = hosts.broadcast_from_first(
            lambda: directory.recorded_batch_size(_local(workdir))
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
    sweep.run(commands, finished=finished)
    print(f"report: {shlex.join([*_program(command), '--mode=report', f'--workdir={root}'])}")


def _get_sweep(command: Command) -> list[dict[str, object]]:
    path = overrides.recipe_file((command.recipe or "").partition(":")[0])
    get_sweep = getattr(overrides.load_module(path), "get_sweep", None)
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
    from ssljax import recipe
    from ssljax.run import evaluate, metrics, results
    from ssljax.storage.files import read_json

    workdir = _local(command.require("workdir"))
    config = ml_collections.ConfigDict(read_json(workdir / "config.json"))
    recipe.prepare(config)
    step, scores = evaluate.evaluate_directory(recipe.build(config), workdir)
    print(f"step {step}: {results.describe(scores)}")
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
    if command.recipe is not None or command.overrides:
        raise UsageError(
            f"--config is given with --format={command.format}; allowed: --format=npu_bundle"
        )
    from ssljax.export import export

    export.export(
        _local(command.require("workdir")),
        Path(command.require("output")),
        format=command.format,
        weights=command.weights,
        input_dtype=command.input,
        batch_sizes=_batch_sizes(command.batch_sizes),
        opset=command.opset,
        limit=command.limit,
        overwrite=command.overwrite,
    )


def _export_bundle(command: Command) -> None:
    """Of `--config`, from its initial weights, or of `--workdir`, from its newest checkpoint."""
    from ssljax import recipe
    from ssljax.export import directory, npu_bundle
    from ssljax.run.directory import newest_state
    from ssljax.storage.files import read_json

    output = Path(command.require("output"))
    directory.require_free(output, overwrite=command.overwrite)
    workdir = None if command.workdir is None else Path(command.workdir)
    if workdir is None:
        config = command.config()
    else:
        config = ml_collections.ConfigDict(read_json(workdir / "config.json"))
    recipe.prepare(config)
    experiment = recipe.build(config)
    state = None
    if workdir is not None:
        state = newest_state(workdir, experiment.shapes, keep=experiment.keep_checkpoints)
    with directory.replaced(output) as partial:
        npu_bundle.write(experiment, partial, state=state)
    print(f"wrote {output}: train it with python run.py --device=npu; see docs/npu.md")


def _import_bundle(command: Command) -> None:
    from ssljax.export import npu_import

    bundle, workdir = Path(command.require("bundle")), Path(command.require("workdir"))
    output = Path(command.output) if command.output else None
    step = npu_import.import_run(bundle, workdir, output=output)
    print(f"wrote {workdir}: step {step} of the bundle's runner")


def _batch_sizes(values: list[str]) -> tuple[int, ...]:
    if not all(value.strip().isdigit() and int(value) for value in values):
        raise UsageError(f"--batch_sizes={','.join(values)} is no list of numbers from 1 up")
    return tuple(int(value) for value in values)


def _show_data(command: Command) -> None:
    config = command.config()

    from ssljax import recipe
    from ssljax.data import overview, split_file
    from ssljax.storage.files import write_json

    data, split = recipe.load_data(config)
    workdir = Path(command.workdir or f"runs/data/{command.default_name(config)}")
    if (workdir / "config.json").exists():
        raise UsageError(f"workdir {workdir} holds a run; --mode=data needs another directory")
    workdir.mkdir(parents=True, exist_ok=True)
    write_json(workdir / "split.json", split_file.record(split))
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

    recipe.prepare(config)
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
    for name, path in overrides.shipped().items():
        print(f"{name:<28} {overrides.summary(path)}")


def _local(workdir: str) -> Path:
    """A run directory to read, copied here where it is remote."""
    from ssljax.storage import remote

    directory = remote.local(workdir)
    if remote.is_remote(workdir):
        remote.Mirror(workdir, directory, "--workdir").pull()
    return directory


MODES: dict[str, Mode] = {
    "train": Mode(
        "trains a recipe, or goes on where it was interrupted; the default.",
        ("config", "workdir", "sweep", "sweep_index", "sweep_list"),
        _train,
    ),
    "eval": Mode("evaluates a run's newest checkpoint again.", ("workdir",), _evaluate),
    "report": Mode(
        "a table and a page of the runs in and below directories, separated by commas.",
        ("workdir", "output", "reference", "oracle", "follow"),
        _report,
    ),
    "export": Mode(
        "writes a run's model in the form that is served, or a bundle for Ascend NPUs.",
        (
            "workdir",
            "config",
            "output",
            "format",
            "weights",
            "input",
            "batch_sizes",
            "opset",
            "limit",
            "overwrite",
        ),
        _export,
    ),
    "import_npu": Mode(
        "makes a run directory of what a bundle has trained.",
        ("bundle", "workdir", "output"),
        _import_bundle,
    ),
    "data": Mode(
        "shows a recipe's data and split; trains nothing.", ("config", "workdir"), _show_data
    ),
    "augment": Mode(
        "draws what the augmentation does to images.", ("config", "workdir", "count"), _show_views
    ),
    "recipes": Mode("lists the recipes, or a recipe's knobs.", ("config",), _list_recipes),
}
