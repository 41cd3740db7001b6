"""A recipe's file and overrides on a command line -> a config. Needs no JAX.

Recipes that ship with the package are known by their names, `fixmatch_digits`; any other is a file
with a function `get_config()`.
"""

import contextlib
import difflib
import importlib.util
import itertools
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import ml_collections
from absl import flags
from ml_collections import config_flags
from ml_collections.config_dict import placeholder

from ssljax import lookup
from ssljax.errors import UsageError

# How other code calls a knob -> the last part of its name here.
_ALIASES = {
    "wd": "weight_decay",
    "lr": "lr",
    "learning_rate": "lr",
    "mu": "uratio",
    "T": "temperature",
    "tau": "threshold",
    "lambda_u": "unlabeled_weight",
    "wu": "unlabeled_weight",
    "w_match": "w_match",
    "epochs": "num_epochs",
    "steps": "num_steps",
    "bs": "batch_size",
    "batch": "batch_size",
    "momentum": "momentum",
    "num_train_iter": "num_steps",
    "ema_m": "ema_decay",
    "p_cutoff": "threshold",
}


# Recipes


def shipped() -> dict[str, Path]:
    """The recipes that ship with the package, by their names."""
    return {path.stem: path for path in sorted(_folder().glob("*_*.py"))}


def _folder() -> Path:
    package = Path(__file__).parent
    inside = package / "configs"  # of an installed package; in a checkout it lies beside it
    return inside if inside.is_dir() else package.parent / "configs"


def summary(path: Path) -> str:
    """The first line of a recipe's docstring."""
    match = re.match(r'\s*"""(.+?)(\n|""")', path.read_text())
    return match[1].strip() if match else ""


def recipe_file(recipe: str) -> Path:
    """The file of a recipe: a path, or the name of one that ships with the package.

    Raises:
      UsageError: there is none; names the nearest.
    """
    path = Path(recipe).expanduser()
    if path.is_file():
        return path
    names = shipped()
    if recipe in names:
        return names[recipe]
    nearest = difflib.get_close_matches(path.stem, names, n=1, cutoff=0.0)[0]
    raise UsageError(
        f"--config={recipe} is no file and no recipe; the nearest recipe is {nearest}, "
        "--mode=recipes lists all"
    )


def load_module(path: Path) -> ModuleType:
    """Runs a recipe's file. `from configs import …` finds the folder of the file, or ours."""
    spec = importlib.util.spec_from_file_location(f"recipe_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with _importing(path.absolute()):
        spec.loader.exec_module(module)
    return module


@contextlib.contextmanager
def _importing(path: Path) -> Iterator[None]:
    """Where a recipe's file finds what it imports, for as long as it is run."""
    before, modules = list(sys.path), _pop_configs()
    home = path.parents[1] if path.parent.name == "configs" else path.parent
    sys.path[:] = [str(home), *before, str(_folder().parent)]
    try:
        yield
    finally:
        sys.path[:] = before
        _pop_configs()
        sys.modules.update(modules)


def _pop_configs() -> dict[str, ModuleType]:
    """Forgets the package `configs`, of which there can be several."""
    names = [name for name in sys.modules if name.partition(".")[0] == "configs"]
    return {name: sys.modules.pop(name) for name in names}


# Configs


def load(
    recipe: str, overrides: Sequence[str] | Mapping[str, Any] = ()
) -> ml_collections.ConfigDict:
    """The config of a recipe, with overrides.

    `method_args` and `model_args` hold all arguments of the method and the model that are chosen,
    with the recipe's values where it has some, else with those of their signatures.

    Args:
      recipe: a file, or the name of a recipe that ships with the package; `<recipe>:<argument>`
        passes an argument to its `get_config`.
      overrides: `["seed=3", "method_args.threshold=0.9"]`, or `{"seed": 3}`.

    Raises:
      UsageError: there is no such recipe or knob, or a value has another type.
    """
    name, _, argument = recipe.partition(":")
    get_config = getattr(load_module(recipe_file(name)), "get_config", None)
    if get_config is None:
        raise UsageError(f"--config={name} has no function get_config()")
    config = get_config(*([argument] if argument else []))
    if isinstance(overrides, Mapping):
        overrides = [f"{knob}={value}" for knob, value in overrides.items()]
    return apply(config, overrides)


def apply(config: ml_collections.ConfigDict, overrides: Sequence[str]) -> ml_collections.ConfigDict:
    """The config with overrides, `<knob>=<value>`, the later ones last.

    Raises:
      UsageError: there is no such knob, or a value has another type.
    """
    choose_arguments(config, overrides)
    _check_names(config, overrides)
    given = ["", *(f"--config.{override}" for override in overrides)]
    values = flags.FlagValues()
    config_flags.DEFINE_config_dict("config", config, flag_values=values, sys_argv=given)
    try:
        values(given)
    except (flags.Error, TypeError, ValueError) as error:
        raise UsageError(" ".join(str(error).split())) from error
    return values["config"].value


def choose_arguments(config: ml_collections.ConfigDict, overrides: Sequence[str] = ()) -> None:
    """Completes `method_args` and `model_args` for the method and the model that are chosen.

    Those of a recipe are for its own method and model: they go where an override chooses another.
    """
    chosen = dict(override.partition("=")[::2] for override in overrides)
    with config.unlocked():
        for knob in lookup.PACKAGES:
            name = chosen.get(knob, config[knob])
            if name != config[knob]:
                config[f"{knob}_args"] = ml_collections.ConfigDict()
            args = config[f"{knob}_args"]
            for key, default in lookup.arguments(knob, name, trusted=True).items():
                if key not in args:
                    args[key] = placeholder(object) if default is None else default


def complete(config: Mapping[str, Any]) -> dict[str, Any]:
    """A recorded config with the arguments that it leaves to the signatures."""
    full = dict(config)
    for knob in lookup.PACKAGES:
        if knob in full:
            defaults = lookup.arguments(knob, str(full[knob]))
            full[f"{knob}_args"] = defaults | dict(full.get(f"{knob}_args") or {})
    return full


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested knobs -> `{"optimizer.lr": 0.03}`."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def _check_names(config: ml_collections.ConfigDict, overrides: Sequence[str]) -> None:
    known = flatten(config.to_dict())
    groups = {key.rpartition(".")[0] for key in known} - {""}
    for override in overrides:
        knob, equals, _ = override.partition("=")
        if not equals:
            raise UsageError(f"config.{knob} has no value; overrides are written --config.{knob}=…")
        if knob not in known and knob not in groups:
            raise UsageError(unknown_knob(knob, known))


def unknown_knob(knob: str, known: Sequence[str] | Mapping[str, Any]) -> str:
    """The line about a knob that does not exist: how it is spelt, or which one is nearest."""
    if "-" in knob and knob.replace("-", "_") in known:
        right = knob.replace("-", "_")
        return f"config.{knob} does not exist: knobs are written with _, --config.{right}"
    return f"config.{knob} does not exist; the nearest knob is config.{nearest_knob(knob, known)}"


def nearest_knob(knob: str, known: Sequence[str] | Mapping[str, Any]) -> str:
    """The nearest of the known knobs: by the last part of its name, then by all of it."""
    spelt = knob.replace("-", "_")
    last = spelt.rpartition(".")[2]
    ends = {name.rpartition(".")[2]: name for name in reversed(list(known))}
    for name in (_ALIASES.get(last, last), last):
        if name in ends:
            return ends[name]
    nearest = difflib.get_close_matches(spelt, known, n=1, cutoff=0.7)
    nearest = nearest or difflib.get_close_matches(last, ends, n=1, cutoff=0.6)
    nearest = nearest or difflib.get_close_matches(spelt, known, n=1, cutoff=0.0)
    return ends[nearest[0]] if nearest[0] in ends else nearest[0]


# Grids

Point = dict[str, str]  # knob -> value, as after --config.


def grid(text: str) -> list[Point]:
    """`seed=1,2;method_args.threshold=0.9,0.95` -> its four points; the last knob varies fastest.

    Commas inside brackets belong to the value: `optimizer.decay_epochs=(10,20),(15,25)`.

    Raises:
      UsageError: `text` has another form.
    """
    knobs: dict[str, list[str]] = {}
    for part in text.split(";"):
        knob, equals, values = part.strip().partition("=")
        knob = knob.removeprefix("config.")
        if not equals or not knob or knob in knobs:
            raise UsageError(
                f"--sweep={text!r} has {part.strip()!r}; allowed: <knob>=<value>,<value>… of "
                "different knobs, separated by semicolons, or config for the config's get_sweep()"
            )
        knobs[knob] = [value.strip() for value in re.split(r",(?![^(\[]*[)\]])", values)]
    return [dict(zip(knobs, chosen, strict=True)) for chosen in itertools.product(*knobs.values())]


def listed(points: Sequence[Mapping[str, Any]]) -> list[Point]:
    """What a recipe's `get_sweep()` returned, a list of {knob: value}."""
    return [{knob: str(value) for knob, value in point.items()} for point in points]


def names(points: Sequence[Point]) -> list[str]:
    """The points' directories, `seed=1+method_args.threshold=0.9`.

    Raises:
      UsageError: there are no points, or two share a directory.
    """
    found = [
        re.sub(r"[^\w.@=+-]", "_", "+".join(f"{knob}={value}" for knob, value in point.items()))
        for point in points
    ]
    twice = [name for i, name in enumerate(found) if not name or name in found[:i]]
    if twice or not found:
        raise UsageError(f"--sweep has {f'{twice[0]!r} twice' if twice else 'no points'}")
    return found
