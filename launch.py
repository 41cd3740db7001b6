"""Trains, evaluates, reports, exports, shows data: `python launch.py --config=configs/….py`."""

import difflib
import runpy
import shlex
import signal
import sys
from pathlib import Path

import ml_collections
from absl import app, flags
from ml_collections import config_flags

from ssljax import huge_pages
from ssljax.errors import Interrupted, RunError, UsageError

_CONFIG = config_flags.DEFINE_config_file("config", help_string="A file of configs/.")
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "The run directory (default: runs/<config>/<data set name>)."
)
app.define_help_flags()
_MODE = flags.DEFINE_enum(
    "mode",
    "train",
    ["train", "eval", "report", "export", "import_npu", "data", "augment"],
    "What to do.",
)
_SWEEP = flags.DEFINE_string(
    "sweep", None, "Trains a grid, 'seed=1,2;method_args.threshold=0.9,0.95', or config's own."
)
_SWEEP_INDEX = flags.DEFINE_integer("sweep_index", None, "Trains one point of it, from 0.")
_SWEEP_LIST = flags.DEFINE_bool("sweep_list", False, "Prints the points and their commands.")
_REFERENCE = flags.DEFINE_enum("reference", None, ["paper"], "Rows to report beside the runs'.")
_ORACLE = flags.DEFINE_bool("oracle", False, "Reports the best error on the test set too.")
_FOLLOW = flags.DEFINE_bool("follow", False, "Reports again whenever a run goes on.")
_COUNT = flags.DEFINE_integer("count", 8, "How many images --mode=augment shows.", lower_bound=1)
_FORMAT = flags.DEFINE_enum(
    "format", None, ["saved_model", "tf1", "onnx", "npu_bundle"], "What --mode=export writes."
)
_OUTPUT = flags.DEFINE_string("output", None, "The directory that --mode=export and report write.")
_BUNDLE = flags.DEFINE_string("bundle", None, "The bundle that --mode=import_npu reads.")
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Export to an output directory that has files.")
_WEIGHTS = flags.DEFINE_enum("weights", "ema", ["ema", "raw"], "Which weights are exported.")
_INPUT = flags.DEFINE_enum(
    "input", "uint8", ["uint8", "float32"], "Type of the exported model's images, 0..255."
)
_BATCH_SIZES = flags.DEFINE_list(
    "batch_sizes", [], "A graph for each, with --format=tf1; none: one graph for any."
)
_OPSET = flags.DEFINE_integer("opset", 17, "Of --format=onnx.", lower_bound=1)
_LIMIT = flags.DEFINE_integer(
    "limit", None, "Images of the parity report (default: all of the test set); 0: no report."
)


def main(argv: list[str]) -> int:
    """Runs one command; returns its exit code."""
    try:
        _parse(argv)
        if _MODE.value == "eval":
            _evaluate()
        elif _MODE.value == "report":
            _report()
        elif _MODE.value == "export":
            _export_bundle() if _FORMAT.value == "npu_bundle" else _export()
        elif _MODE.value == "import_npu":
            _import_bundle()
        elif _MODE.value == "data":
            _show_data()
        elif _MODE.value == "augment":
            _show_views()
        elif _SWEEP.value is not None:
            _sweep(argv[1:])
        else:
            _train()
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


def _train() -> None:
    from ssljax import evaluate, recipe, stage
    from ssljax.training import hosts, loop, run_directory, seeds

    with hosts.together():
        workdir = _WORKDIR.value or f"runs/{_default_name()}"
        parts, *others = recipe.build_seeds(
            _config(), recorded=lambda: run_directory.recorded_batch_size(_local(workdir))
        )
        if hosts.is_first():
            print(f"{recipe.describe(parts)}\nrun directory: {workdir}", flush=True)
        if others:
            if stage.is_remote(workdir):
                raise UsageError(f"--workdir={workdir} is remote; allowed with num_seeds: a path")
            print(f"{1 + len(others)} seeds in one program, each in a directory of its own")
            for name, results in seeds.train([parts, *others], Path(workdir)).items():
                print(f"{name}: {evaluate.headline(results)}")
            return
        home = workdir if stage.is_remote(workdir) else ""
        results = loop.train(parts, stage.local(workdir), home=home)
        if hosts.is_first():
            print(evaluate.headline(results))


def _sweep(arguments: list[str]) -> None:
    """Runs the points of `--sweep`, prints them, or runs one; finished ones are skipped."""
    from ssljax import sweep
    from ssljax.training import run_directory

    points = (
        sweep.listed(_get_sweep()) if _SWEEP.value == "config" else sweep.grid(_SWEEP.value or "")
    )
    runs = dict(zip(sweep.names(points), points, strict=True))
    root = Path(_WORKDIR.value or f"runs/{_config_name()}/sweep")
    run_directory.require_no_run(root)
    kept = _without(arguments, "sweep", "sweep_index", "sweep_list", "workdir")
    commands, finished = {}, []
    for name, point in runs.items():
        own = [*kept, *(f"--config.{knob}={value}" for knob, value in point.items())]
        if sweep.is_finished(root / name, _config_of(own).to_dict()):
            finished.append(name)
        commands[name] = [
            sys.executable, str(Path(__file__)), *own, f"--workdir={root / name}"
        ]  # fmt: skip
    if _SWEEP_LIST.value:
        for number, (name, command) in enumerate(commands.items()):
            done = " (finished)" if name in finished else ""
            print(f"{number}  {name}{done}\n   {shlex.join(command)}")
        return
    if (index := _SWEEP_INDEX.value) is not None:
        if not 0 <= index < len(commands):
            raise UsageError(f"--sweep_index is {index}; allowed: from 0 to {len(commands) - 1}")
        commands = dict([list(commands.items())[index]])
    for name in finished:
        if commands.pop(name, None):
            print(f"sweep: {name} is finished")
    sweep.run(commands)


def _get_sweep() -> list[dict[str, object]]:
    path = config_flags.get_config_filename(flags.FLAGS["config"])
    get_sweep = runpy.run_path(path).get("get_sweep")
    if get_sweep is None:
        raise UsageError(f"--sweep=config needs a function get_sweep() in {path}")
    return get_sweep()


def _without(arguments: list[str], *names: str) -> list[str]:
    """Arguments but for some flags: `--name=value`, `--name value` or, of bools, `--name`."""
    kept, left = [], iter(arguments)
    for argument in left:
        name, _ = _split_flag(argument)
        if name not in names or not argument.startswith("-"):
            kept.append(argument)
        elif "=" not in argument and not flags.FLAGS[name].boolean:
            next(left, None)
    return kept


def _config_of(arguments: list[str]) -> ml_collections.ConfigDict:
    """The config that other arguments would give."""
    values = flags.FlagValues()
    config_flags.DEFINE_config_file("config", flag_values=values)
    before, sys.argv = sys.argv, ["launch.py", *arguments]  # where ml_collections looks for them
    try:
        _read(values, sys.argv, known_only=True)
        return values.config
    finally:
        sys.argv = before


def _evaluate() -> None:
    from ssljax import evaluate, recipe
    from ssljax.files import read_json
    from ssljax.training import metrics

    if _WORKDIR.value is None:
        raise UsageError("--workdir is missing: the run directory to evaluate")
    workdir = _local(_WORKDIR.value)
    config = ml_collections.ConfigDict(read_json(workdir / "config.json"))
    step, scores = evaluate.evaluate_directory(recipe.build(config), workdir)
    print(f"step {step}: {evaluate.describe(scores)}")
    rows = metrics.read_rows(workdir / "metrics.jsonl")
    print(evaluate.headline(evaluate.results(rows)))


def _report() -> None:
    from ssljax.report import report

    paths = [Path(path) for path in _required("workdir", _WORKDIR.value).split(",")]
    if _OUTPUT.value is None and len(paths) > 1:
        raise UsageError("--output is missing, which several directories in --workdir need")
    output = Path(_OUTPUT.value or paths[0])
    options = {"published": _REFERENCE.value == "paper", "oracle": _ORACLE.value}
    if _FOLLOW.value:
        print(f"writing {output}/report.html whenever a run goes on, until Ctrl-C", flush=True)
        report.follow(paths, output, say=lambda text: print(f"\n{text}", flush=True), **options)
    else:
        print(report.write(paths, output, **options))
    print(f"wrote {output}/report.html, .md, .csv, .tex and report_figures/")


def _export() -> None:
    from ssljax.export import bundle

    bundle.export(
        _local(_required("workdir", _WORKDIR.value)),
        Path(_required("output", _OUTPUT.value)),
        format=_required("format", _FORMAT.value),
        weights=_WEIGHTS.value,
        input_dtype=_INPUT.value,
        batch_sizes=_numbers("batch_sizes", _BATCH_SIZES.value),
        opset=_OPSET.value,
        limit=_LIMIT.value,
        overwrite=_OVERWRITE.value,
    )


def _export_bundle() -> None:
    """Of `--config`, from its initial weights, or of `--workdir`, from its newest checkpoint."""
    from ssljax import recipe
    from ssljax.export import directory, npu_bundle
    from ssljax.files import read_json
    from ssljax.training import run_directory

    output = Path(_required("output", _OUTPUT.value))
    directory.require_free(output, overwrite=_OVERWRITE.value)
    state = None
    if _WORKDIR.value is None:
        parts = recipe.build(_config())
    else:
        workdir = Path(_WORKDIR.value)
        config = ml_collections.ConfigDict(read_json(workdir / "config.json"))
        parts = recipe.build(config)
        state = run_directory.newest_state(workdir, parts.shapes, keep=parts.keep_checkpoints)
    with directory.replaced(output) as partial:
        npu_bundle.write(parts, partial, state=state)
    print(f"wrote {output}: train it with python run.py --device=npu; see docs/npu.md")


def _import_bundle() -> None:
    from ssljax.export import npu_import

    workdir = Path(_required("workdir", _WORKDIR.value))
    output = Path(_OUTPUT.value) if _OUTPUT.value else None
    step = npu_import.import_run(Path(_required("bundle", _BUNDLE.value)), workdir, output=output)
    print(f"wrote {workdir}: step {step} of the bundle's runner")


def _required(name: str, value: str | None) -> str:
    if value is None:
        raise UsageError(f"--{name} is missing, which --mode={_MODE.value} needs")
    return value


def _numbers(name: str, values: list[str]) -> tuple[int, ...]:
    if not all(value.strip().isdigit() and int(value) for value in values):
        raise UsageError(f"--{name}={','.join(values)} is no list of numbers from 1 up")
    return tuple(int(value) for value in values)


def _show_data() -> None:
    from ssljax import recipe
    from ssljax.data import overview, split_file
    from ssljax.files import write_json

    data, split = recipe.load_data(_config())
    workdir = Path(_WORKDIR.value or f"runs/data/{_default_name()}")
    if (workdir / "config.json").exists():
        raise UsageError(f"workdir {workdir} holds a run; --mode=data needs another directory")
    workdir.mkdir(parents=True, exist_ok=True)
    write_json(workdir / "split.json", split_file.record(split))
    overview.contact_sheet(data, split).save(workdir / "labelled.png")
    print(f"{_config().dataset}\n{overview.table(data, split)}")
    print(f"wrote {workdir}/split.json and {workdir}/labelled.png")


def _show_views() -> None:
    import jax
    import numpy as np
    from PIL import Image

    from ssljax import recipe
    from ssljax.augment import contact_sheet

    parts = recipe.build(_config())
    images = parts.dataset.pick(np.arange(min(_COUNT.value, len(parts.dataset.labels))))
    sheet = contact_sheet.draw(jax.random.key(parts.seed), images, parts.augmentation)
    # Beside the run directory: inside, it would keep a run from starting there.
    path = _workdir().with_name(_workdir().name + "_augment.png")
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(sheet).save(path)
    print(f"wrote {path}: {len(images)} images, and each operation at increasing magnitude")


def _config() -> ml_collections.ConfigDict:
    if _CONFIG.value is None:
        raise UsageError("--config is missing; for example --config=configs/fixmatch_digits.py")
    return _CONFIG.value


def _workdir() -> Path:
    return Path(_WORKDIR.value or f"runs/{_default_name()}")


def _local(workdir: str) -> Path:
    """A run directory to read, copied here where it is remote."""
    from ssljax import stage

    directory = stage.local(workdir)
    if stage.is_remote(workdir):
        stage.Mirror(workdir, directory, "--workdir").pull()
    return directory


def _config_name() -> str:
    _config()
    return Path(config_flags.get_config_filename(flags.FLAGS["config"])).stem


def _default_name() -> str:
    return f"{_config_name()}/{_config().dataset.replace('/', '_').replace(':', '_')}"


def _parse(argv: list[str]) -> None:
    """Parses flags; what is wrong becomes one line."""
    given = dict(_split_flag(arg) for arg in argv[1:] if arg.startswith("-"))
    path = Path(given.get("config", "").partition(":")[0])
    if "config" in given and not path.is_file():
        raise UsageError(
            f"--config={given['config']} is no file; recipes are --config=configs/<recipe>.py"
        )
    rest = _read(flags.FLAGS, argv)
    if len(rest) > 1:
        raise UsageError(f"argument {rest[1]!r} is not a flag; flags are written --name=value")
    if _SWEEP.value is None and (_SWEEP_LIST.value or _SWEEP_INDEX.value is not None):
        raise UsageError("--sweep is missing, which --sweep_list and --sweep_index need")
    if _SWEEP.value is not None and _MODE.value != "train":
        raise UsageError(f"--sweep is given with --mode={_MODE.value}; allowed: --mode=train")


def _read(values: flags.FlagValues, argv: list[str], **options: bool) -> list[str]:
    """Parses into `values`; what absl and ml_collections raise becomes one line."""
    try:
        return values(argv, **options)
    except AttributeError as error:  # an override of a knob that the config does not have
        given = dict(_split_flag(arg) for arg in argv[1:] if arg.startswith("-"))
        raise UsageError(_nearest_knob(given)) from error
    except (flags.Error, TypeError, ValueError) as error:
        raise UsageError(" ".join(str(error).split())) from error


def _split_flag(arg: str) -> tuple[str, str]:
    name, _, value = arg.lstrip("-").partition("=")
    return name, value


def _nearest_knob(given: dict[str, str]) -> str:
    """Names the first override that the config file does not have, and the nearest it has."""
    from ssljax.training import run_directory

    config = runpy.run_path(given["config"])["get_config"]()
    known = [f"config.{key}" for key in run_directory.flatten(config.to_dict())]
    unknown = next(name for name in given if name.startswith("config.") and name not in known)
    nearest = difflib.get_close_matches(unknown, known, n=1, cutoff=0.0)[0]
    return f"{unknown} does not exist; the nearest knob is {nearest}"


if __name__ == "__main__":
    huge_pages.restart()
    sys.exit(main(sys.argv))
