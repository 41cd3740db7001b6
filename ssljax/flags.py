"""The flags of the command line: which mode takes which, and how they are read."""

import dataclasses
import difflib
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import ml_collections
from absl import flags

from ssljax import overrides, paths, spelling
from ssljax.defaults import get_config
from ssljax.errors import UsageError

_EXPORTS = ("saved_model", "tf1", "onnx", "npu_bundle")
KNOB = "config.<knob>"
# Flags that some formats of an export alone take.
_FORMATS = {
    "batch_sizes": ("tf1",),
    "config": ("npu_bundle",),
    "input": ("saved_model", "tf1", "onnx"),
    "limit": ("saved_model", "tf1", "onnx"),
    "opset": ("onnx",),
    "weights": ("saved_model", "tf1", "onnx"),
}
# Flags that are paths, and the modes in which they can be URLs.
_PATHS: dict[str, tuple[str, ...]] = {
    "bundle": (), "images": (), "labels": (), "output": (), "workdir": ("train", "eval", "export")
}  # fmt: skip


class Mode(NamedTuple):
    """A value of `--mode`."""

    help: str
    flags: tuple[str, ...]  # that it takes, beside --mode


_OF_EXPORT = (
    "workdir", "config", KNOB, "output", "format", "weights", "input", "batch_sizes", "opset",
    "limit", "overwrite",
)  # fmt: skip
_OF_PREDICT = (
    "workdir", KNOB, "images", "output", "weights", "max_error", "logit_adjustment", "overwrite",
)  # fmt: skip
MODES: dict[str, Mode] = {
    "train": Mode(
        "trains a recipe, or goes on where it was interrupted; the default.",
        ("config", KNOB, "workdir", "sweep", "sweep_index", "sweep_list"),
    ),
    "eval": Mode("evaluates a run's newest checkpoint again.", ("workdir", KNOB)),
    "predict": Mode("predicts the classes of images with a run's model.", _OF_PREDICT),
    "label_next": Mode(
        "chooses the images without a label that are worth labelling next.",
        ("workdir", "config", KNOB, "budget", "strategy", "output", "overwrite"),
    ),
    "add_labels": Mode(
        "reads labels that people gave into a new split.json.",
        ("workdir", "config", KNOB, "labels", "output", "overwrite"),
    ),
    "label_errors": Mode(
        "lists the labels of a run that its predictions contradict most.",
        ("workdir", KNOB, "output", "weights", "overwrite"),
    ),
    "report": Mode(
        "a table and a page of the runs in and below directories, separated by commas.",
        ("workdir", "output", "reference", "oracle", "follow"),
    ),
    "export": Mode(
        "writes a run's model in the form that is served, or a bundle for Ascend NPUs.",
        _OF_EXPORT,
    ),
    "import_npu": Mode(
        "makes a run directory of what a bundle has trained.",
        ("bundle", "workdir", KNOB, "output"),
    ),
    "probe": Mode(
        "tries a few labels on the features of a network: the first thing for new images.",
        ("config", KNOB, "workdir", "label_counts", "sets"),
    ),
    "compile": Mode(
        "says what a recipe needs on TPUs or GPUs that are not there. Reads no data.",
        ("config", KNOB, "topology", "fit", "data_shape", "output", "overwrite"),
    ),
    "data": Mode("shows a recipe's data and split; trains nothing.", ("config", KNOB, "workdir")),
    "augment": Mode(
        "draws what the augmentation does to images.", ("config", KNOB, "workdir", "count")
    ),
    "recipes": Mode("lists the recipes, or a recipe's knobs.", ("config", KNOB)),
}


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

    @property
    def program(self) -> list[str]:
        """The command line that started this process, without its flags."""
        count, started = len(self.arguments), sys.orig_argv
        if count and started[-count:] == self.arguments and len(started) > count:
            return [sys.executable, *started[1:-count]]
        return [sys.executable, "-m", "ssljax"]

    def again_without(self, *names: str) -> list[str]:
        """The command line that started this process, without some flags and their values."""
        kept, left = self.program, iter(self.arguments)
        for argument in left:
            name, equals, _ = argument.lstrip("-").partition("=")
            name = name.removeprefix("no") if name.removeprefix("no") in names else name
            if name not in names or not argument.startswith("-"):
                kept.append(argument)
            elif not equals and not self.flags[name].boolean:
                next(left, None)
        return kept


def define_flags() -> flags.FlagValues:
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
        "The run directory; training's default is runs/<recipe>/<data set name>.",
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
    _define_labeling(define)
    _define_compile(define)
    define(
        flags.DEFINE_list, "label_counts", [],
        "Numbers of labelled images to try, by default 1, 2, 5 … per class.",
    )  # fmt: skip
    define(flags.DEFINE_integer, "sets", 5, "Labelled sets of each number.", lower_bound=1)
    define(flags.DEFINE_integer, "count", 8, "How many images are shown.", lower_bound=1)
    define(flags.DEFINE_enum, "format", None, list(_EXPORTS), "What is written.")
    define(
        flags.DEFINE_string, "output", None,
        "The directory that is written; with --mode=add_labels or compile, the file.",
    )  # fmt: skip
    define(flags.DEFINE_string, "bundle", None, "The bundle that is read.")
    define(flags.DEFINE_bool, "overwrite", False, "Replaces an output directory that has files.")
    define(flags.DEFINE_enum, "weights", "ema", ["ema", "raw"], "Which weights are used.")
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
        "Images of the parity report, spread over the classes, by default all; 0: no report.",
    )  # fmt: skip
    return values


def _define_compile(define: Callable[..., None]) -> None:
    """The flags of `modes/compiling.py`."""
    define(
        flags.DEFINE_string, "topology", None,
        "What is compiled for: v5e:2x4, v4:2x2x1, v5p:2x2x1, v6e:2x4, h100:8 or more or fewer.",
    )  # fmt: skip
    define(flags.DEFINE_bool, "fit", False, "Looks for the largest batch that fits.")
    define(
        flags.DEFINE_list, "data_shape", [],
        "The sizes of a data set that is not known: images,height,width,channels,classes.",
    )  # fmt: skip


def _define_labeling(define: Callable[..., None]) -> None:
    """The flags of `modes/labeling.py`."""
    define(
        flags.DEFINE_string, "images", None,
        "A folder, a file, a pattern with *, an .npz, or of the run: unlabeled or test.",
    )  # fmt: skip
    define(
        flags.DEFINE_float, "max_error", None,
        "Marks the predictions that can be trusted with this error, above 0 and below 1.",
    )  # fmt: skip
    define(
        flags.DEFINE_float, "logit_adjustment", 0.0,
        "τ: subtracts τ · log(share of each class among the labelled images) from the logits.",
    )  # fmt: skip
    define(flags.DEFINE_integer, "budget", None, "How many images to label.", lower_bound=1)
    define(
        flags.DEFINE_enum, "strategy", "typical",
        ["typical", "margin", "entropy", "coreset", "committee"], "Which images are chosen.",
    )  # fmt: skip
    define(
        flags.DEFINE_string, "labels", None,
        "A CSV with the columns file and label, or Label Studio's JSON export.",
    )  # fmt: skip


def parse(arguments: list[str]) -> Command | None:
    """A command line, without the program's name; None: it asks for help.

    Raises:
      UsageError: a flag does not exist, is of another mode, or has a value that is not allowed.
    """
    if any(re.fullmatch(r"--?(help\w*|h)(=.*)?", argument) for argument in arguments):
        return None
    rest, given = _split(arguments)
    values = define_flags()
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
    for name in _PATHS:
        if given_path := values[name].value:
            values[name].value = paths.expand(str(given_path), f"--{name}")
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
    knobs = overrides.flatten(get_config().to_dict())
    if name.replace("-", "_") in knobs or name.startswith(("method_args.", "model_args.")):
        return f"--{name} does not exist; did you mean --config.{name.replace('-', '_')}?"
    near = difflib.get_close_matches(name, list(values), n=1, cutoff=0.6)
    if near:
        return f"--{name} does not exist; did you mean --{near[0]}?"
    if difflib.get_close_matches(name, knobs, n=1, cutoff=0.7):
        return (
            f"--{name} does not exist; did you mean --config.{spelling.nearest_knob(name, knobs)}?"
        )
    return f"--{name} does not exist; --help lists the flags"


def _check_mode(command: Command) -> None:
    """Refuses a flag of another mode or format, and a URL where a path belongs."""
    mode = command.mode
    allowed = {"mode", *MODES[mode].flags}
    given = [name for name in command.flags if command.flags[name].present]
    for name in [*given, *([KNOB] if command.overrides else [])]:
        if name not in allowed:
            modes = [other for other, spec in MODES.items() if name in spec.flags]
            knob = f", or --config.{name}" if KNOB in allowed and name in get_config() else ""
            raise UsageError(
                f"--{name} is given with --mode={mode}; allowed: --mode={' or '.join(modes)}{knob}"
            )
    for name in given:
        if mode == "export" and command.format not in _FORMATS.get(name, (command.format,)):
            raise UsageError(
                f"--{name} is given with --format={command.format}; allowed: "
                f"--format={' or '.join(_FORMATS[name])}"
            )
        is_url = name in _PATHS and "://" in str(command.flags[name].value)
        if is_url and (mode not in _PATHS[name] or command.sweep is not None):
            which = f"--mode={mode}" if command.sweep is None else "--sweep"
            raise UsageError(
                f"--{name}={command.flags[name].value} is a URL; allowed with {which}: a path"
            )
    if command.sweep_list and command.sweep_index is not None:
        raise UsageError("--sweep_list and --sweep_index are given; allowed: one of them")
    if command.sweep is None and (command.sweep_list or command.sweep_index is not None):
        raise UsageError("--sweep is missing, which --sweep_list and --sweep_index need")
