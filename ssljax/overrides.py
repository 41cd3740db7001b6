"""A recipe's file and overrides on a command line -> a config. Needs no JAX.

Recipes that ship with the package are known by their names, `fixmatch_digits`; any other is a file
with a function `get_config()`.
"""

import difflib
import functools
import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any

import ml_collections
from absl import flags
from ml_collections import config_flags
from ml_collections.config_dict import placeholder

from ssljax import lookup, recipe_files
from ssljax.errors import UsageError

# How other code calls a knob -> the last part of its name here, the likeliest first.
_ALIASES: dict[str, tuple[str, ...]] = {
    "wd": ("weight_decay",),
    "learning_rate": ("lr",),
    "mu": ("uratio",),
    "T": ("temperature",),
    "tau": ("threshold",),
    "p_cutoff": ("threshold",),
    "lambda_u": ("unlabeled_weight", "w_match", "consistency_weight", "vat_weight"),
    "wu": ("unlabeled_weight", "w_match", "consistency_weight", "vat_weight"),
    "epochs": ("num_epochs",),
    "steps": ("num_steps",),
    "num_train_iter": ("num_steps",),
    "bs": ("batch_size",),
    "batch": ("batch_size",),
    "ema_m": ("ema_decay",),
}
# What a value has to be, for a message.
_VALUES = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    tuple: "values such as (10, 20)",
}


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
    path = recipe_files.recipe_file(name)
    with recipe_files.running(path):  # functions of the file may import, too
        get_config = getattr(recipe_files._execute(path), "get_config", None)
        if get_config is None:
            raise UsageError(f"--config={name} has no function get_config()")
        config = get_config(*([argument] if argument else []))
    if not isinstance(config, ml_collections.ConfigDict):
        raise UsageError(
            f"--config={name}: get_config() returned a {type(config).__name__}; allowed: an "
            "ml_collections.ConfigDict"
        )
    if isinstance(overrides, Mapping):
        overrides = [f"{knob}={value}" for knob, value in overrides.items()]
    return apply(config, overrides)


def apply(config: ml_collections.ConfigDict, overrides: Sequence[str]) -> ml_collections.ConfigDict:
    """The config with overrides, `<knob>=<value>`, the later ones last.

    Of images of one's own (`folder:`, `npz:`) no validation image is a labelled one, whatever the
    recipe has, unless an override of `unlabeled` says otherwise.

    Raises:
      UsageError: there is no such knob, or a value has another type.
    """
    choose_arguments(config, overrides)
    config = change(config, overrides)
    given = {override.partition("=")[0] for override in overrides}
    own_images = str(config.get("dataset", "")).startswith(("folder:", "npz:"))
    if own_images and "unlabeled" not in given and config.get("unlabeled") == "all":
        config.unlabeled = "strict"  # the published overlap serves comparisons alone
    return config


def change(
    config: ml_collections.ConfigDict, overrides: Sequence[str]
) -> ml_collections.ConfigDict:
    """As `apply`, without a look at the method and the model: nothing is imported."""
    _check_names(config, overrides)
    for override in overrides:  # one by one, so that an error is of one
        given = ["", f"--config.{override}"]
        values = flags.FlagValues()
        config_flags.DEFINE_config_dict("config", config, flag_values=values, sys_argv=given)
        try:
            values(given)
        except (flags.Error, TypeError, ValueError) as error:
            raise UsageError(_bad_value(config, override, error)) from error
        config = values["config"].value
    return config


def _bad_value(config: ml_collections.ConfigDict, override: str, error: Exception) -> str:
    *path, last = override.partition("=")[0].split(".")
    kind = functools.reduce(getattr, path, config).get_type(last)
    if kind in _VALUES:
        return f"--config.{override} has another type; allowed: {_VALUES[kind]}"
    return " ".join(str(error).split())


def choose_arguments(config: ml_collections.ConfigDict, overrides: Sequence[str] = ()) -> None:
    """Completes `method_args` and `model_args` for the method and the model that are chosen.

    Those of a recipe are for its own method and model: they go where an override chooses another.
    """
    chosen = dict(override.partition("=")[::2] for override in overrides)
    with config.unlocked():
        for knob in lookup.PACKAGES:
            if knob not in config:
                continue  # `recipe.build` says so
            name = chosen.get(knob, config[knob])
            if name != config[knob] or f"{knob}_args" not in config:
                config[f"{knob}_args"] = ml_collections.ConfigDict()
            args = config[f"{knob}_args"]
            for key, default in lookup.arguments(knob, name, trusted=True).items():
                if key not in args:
                    args[key] = placeholder(object) if default is None else default
            for key in lookup.without_default(knob, name):  # there only if an override sets it
                if key not in args and f"{knob}_args.{key}" in chosen:
                    args[key] = placeholder(object)


def complete(config: Mapping[str, Any]) -> dict[str, Any]:
    """A recorded config with the arguments that it leaves to the signatures, as JSON has them.

    Nothing that the config names is imported: whoever reads a run need not trust it.
    """
    full = dict(config)
    for knob in lookup.PACKAGES:
        if knob in full:
            defaults = lookup.arguments(knob, str(full[knob]))
            defaults = {k: list(v) if isinstance(v, tuple) else v for k, v in defaults.items()}
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
    pairs = [override.partition("=") for override in overrides]
    known |= {knob: value for knob, _, value in pairs if knob in lookup.PACKAGES}
    for knob, equals, _ in pairs:
        if not equals:
            raise UsageError(f"config.{knob} has no value; overrides are written --config.{knob}=…")
        if knob not in known and knob not in groups:
            raise UsageError(unknown_knob(knob, known))


def unknown_knob(knob: str, known: Sequence[str] | Mapping[str, Any]) -> str:
    """The line about a knob that does not exist: how it is spelt, which one is nearest, or that it
    is an argument of another method or model."""
    missing = f"config.{knob} does not exist"
    if "-" in knob and knob.replace("-", "_") in known:
        return f"{missing}: knobs are written with _, --config.{knob.replace('-', '_')}"
    names = _names(knob)
    ends = {name.rpartition(".")[2] for name in known}
    near = difflib.get_close_matches(names[-1], ends, n=1, cutoff=0.7)
    if isinstance(known, Mapping) and not ends & {*names}:
        for kind in lookup.PACKAGES:
            if kind in known and (owners := _owners(kind, names, close=not near)):
                args = lookup.arguments(kind, str(known[kind]))
                name, of = owners
                return (
                    f"{missing}: config.{kind} {known[kind]} has no {name}, which is of {of}; "
                    f"config.{kind}_args has {', '.join(args) or 'no argument'}"
                )
    return f"{missing}; the nearest knob is config.{nearest_knob(knob, known)}"


def _names(knob: str) -> tuple[str, ...]:
    """What the last part of a knob's name can mean."""
    last = knob.replace("-", "_").rpartition(".")[2]
    return (*_ALIASES.get(last, ()), last)


def _owners(kind: str, names: Sequence[str], *, close: bool) -> tuple[str, str] | None:
    """The first of the names that is an argument of some methods or models, and which have it.

    Args:
      close: whether one that is nearly spelt like the last name counts, too.
    """
    declared = lookup.declared(kind)
    if close:
        every = {arg: None for args in declared.values() for arg in args}
        names = [*names, *difflib.get_close_matches(names[-1], every, n=1, cutoff=0.8)]
    for name in names:
        of = [owner for owner, args in declared.items() if name in args]
        if of:
            return name, ", ".join(of)
    return None


def nearest_knob(knob: str, known: Sequence[str] | Mapping[str, Any]) -> str:
    """The nearest of the known knobs: by the last part of its name, then by all of it."""
    spelt = knob.replace("-", "_")
    last = spelt.rpartition(".")[2]
    ends = {name.rpartition(".")[2]: name for name in reversed(list(known))}
    for name in _names(knob):
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
