"""Builds a config from a recipe's file and command-line overrides. Needs no JAX.

Recipes that ship with the package are known by name, `fixmatch_digits`; any other recipe is a file
with a function `get_config()`.
"""

import functools
import itertools
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

import ml_collections
from absl import flags
from ml_collections import config_flags
from ml_collections.config_dict import placeholder

from ssljax import defaults, lookup, recipe_files, spelling
from ssljax.checks import KINDS, check_kind, prefix_errors
from ssljax.errors import UsageError


def load(
    recipe: str, overrides: Sequence[str] | Mapping[str, Any] = ()
) -> ml_collections.ConfigDict:
    """Returns the config of a recipe, with overrides.

    `method_args` and `model_args` hold all arguments of the chosen method and model: the recipe's
    values where given, otherwise the defaults of the signatures.

    Args:
      recipe: a file, or the name of a recipe that ships with the package; `<recipe>:<argument>`
        passes an argument to its `get_config`.
      overrides: `["seed=3", "method_args.threshold=0.9"]`, or `{"seed": 3}`.

    Raises:
      UsageError: the recipe or a knob does not exist, or a value has another type.
    """
    name, _, argument = recipe.partition(":")
    path = recipe_files.recipe_file(name)
    with recipe_files.running(path) as module:
        get_config = getattr(module, "get_config", None)
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


def check_kinds(config: ml_collections.ConfigDict) -> None:
    """Compares the types of a config's knobs with those in `defaults.py`.

    Raises:
      UsageError: a knob has another type. Missing and unknown knobs are not checked.
    """
    with prefix_errors(""):
        for knob, default in flatten(defaults.get_config().to_dict(), groups=True).items():
            *path, last = knob.split(".")
            group: Any = config
            for key in path:
                group = group.get(key, {})
            if last in group:
                check_kind(f"config.{knob}", group[last], _annotation(default))


def _annotation(default: Any) -> Any:
    if isinstance(default, tuple):
        return tuple[str, ...] if isinstance(default[0], str) else tuple[float, ...]
    return ml_collections.ConfigDict if isinstance(default, dict) else type(default)


def apply(config: ml_collections.ConfigDict, overrides: Sequence[str]) -> ml_collections.ConfigDict:
    """Returns the config with overrides `<knob>=<value>`, applied in order.

    For the user's own images (`folder:`, `npz:`), validation images are never labelled ones,
    whatever the recipe sets, unless an override sets `unlabeled`.

    Raises:
      UsageError: a knob does not exist, or a value has another type.
    """
    check_kinds(config)
    choose_arguments(config, overrides)
    config = change(config, overrides)
    given = {override.partition("=")[0] for override in overrides}
    own_images = str(config.get("dataset", "")).startswith(("folder:", "npz:"))
    if own_images and "unlabeled" not in given and config.get("unlabeled") == "all":
        config.unlabeled = "strict"  # the published overlap is only useful for comparisons
    return config


def change(
    config: ml_collections.ConfigDict, overrides: Sequence[str]
) -> ml_collections.ConfigDict:
    """Applies overrides as `apply` does, without importing the method or the model."""
    _check_names(config, overrides)
    for override in overrides:  # one at a time, so that an error is about one override
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
    if kind in KINDS:
        return f"--config.{override} has another type; allowed: {KINDS[kind]}"
    return " ".join(str(error).split())


def choose_arguments(config: ml_collections.ConfigDict, overrides: Sequence[str] = ()) -> None:
    """Completes `method_args` and `model_args` for the chosen method and model.

    Arguments of a recipe belong to its method and model: they are dropped if an override chooses
    another one.
    """
    chosen = dict(override.partition("=")[::2] for override in overrides)
    with config.unlocked():
        for knob in lookup.PACKAGES:
            if knob not in config:
                continue  # `recipe.build` reports it
            name = chosen.get(knob, config[knob])
            if name != config[knob]:
                _require_no_effect_lost(config, knob, chosen)
            if name != config[knob] or f"{knob}_args" not in config:
                config[f"{knob}_args"] = ml_collections.ConfigDict()
            args = config[f"{knob}_args"]
            for key, default in lookup.arguments(knob, name, trusted=True).items():
                if key not in args:
                    args[key] = placeholder(object) if default is None else default
            for key in lookup.without_default(knob, name):  # present only if an override sets it
                if key not in args and f"{knob}_args.{key}" in chosen:
                    args[key] = placeholder(object)


def _require_no_effect_lost(
    config: ml_collections.ConfigDict, knob: str, chosen: Mapping[str, str]
) -> None:
    """Rejects an override that would have no effect, as another method (or model) is chosen.

    Such a knob refers to an argument of the recipe's method, as `wu` of the ImageNet recipes.
    """
    args = config.get(f"{knob}_args", {})
    for other in set(chosen) & set(config):
        for arg in args:
            if config.get_ref(other) is args.get_ref(arg):
                raise UsageError(
                    f"--config.{other}={chosen[other]} would change nothing: it stands for "
                    f"config.{knob}_args.{arg} of {config[knob]}, and --config.{knob} is "
                    f"{chosen[knob]}; set --config.{knob}_args.<argument>"
                )


def complete(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a recorded config, completed with knobs added since it was recorded and with the
    default arguments of the signatures, in JSON's types.

    Nothing that the config names is imported: reading a run does not require trusting it.
    """
    full = merged(_listed(defaults.get_config().to_dict()), config)
    for knob in lookup.PACKAGES:
        if knob in full:
            declared = _listed(lookup.arguments(knob, str(full[knob])))
            full[f"{knob}_args"] = declared | dict(full.get(f"{knob}_args") or {})
    return full


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Merges nested knobs; values of `over` take precedence over those of `base`."""
    both = {
        knob: merged(base[knob], value)
        for knob, value in over.items()
        if isinstance(value, Mapping) and isinstance(base.get(knob), Mapping)
    }
    return {**base, **over, **both}


def _listed(knobs: Mapping[str, Any]) -> dict[str, Any]:
    """Converts tuples in nested knobs to lists, as in JSON."""
    return {
        knob: _listed(value)
        if isinstance(value, Mapping)
        else list(value)
        if isinstance(value, tuple)
        else value
        for knob, value in knobs.items()
    }


def flatten(tree: Mapping[str, Any], prefix: str = "", *, groups: bool = False) -> dict[str, Any]:
    """Flattens nested knobs to `{"optimizer.lr": 0.03}`; `groups` also keeps the nested parts."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        is_group = isinstance(value, Mapping)
        if groups or not is_group:
            flat[prefix + key] = value
        if is_group:
            flat |= flatten(value, f"{prefix}{key}.", groups=groups)
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
            raise UsageError(spelling.unknown_knob(knob, known))


# Grids

Point = dict[str, str]  # knob -> value, as given after --config.
_LONGEST = 255  # bytes of a file name


def grid(text: str) -> list[Point]:
    """`seed=1,2;method_args.threshold=0.9,0.95` -> its four points; the last knob varies fastest.

    Commas inside brackets or quotes belong to the value: `optimizer.decay_epochs=(10,20),(15,25)`,
    `dataset='folder:/a,b.1@40-0'`.

    Raises:
      UsageError: `text` has another form.
    """
    knobs: dict[str, list[str]] = {}
    for part in _split(text, ";"):
        knob, equals, values = part.partition("=")
        knob = _knob(knob)
        if not equals or not knob or knob in knobs:
            raise UsageError(
                f"--sweep={text!r} has {part!r}; allowed: <knob>=<value>,<value>… of different "
                "knobs, separated by semicolons, or config for the config's get_sweep()"
            )
        knobs[knob] = [_unquoted(value) for value in _split(values, ",")]
    return [dict(zip(knobs, chosen, strict=True)) for chosen in itertools.product(*knobs.values())]


def _split(text: str, separator: str) -> list[str]:
    """Splits at separators outside brackets and quotes, and strips spaces around the parts."""
    parts, closing, before = [""], "", separator
    for c in text:
        if c == separator and not closing:
            parts.append("")
        else:
            parts[-1] += c
        if c == closing[-1:]:
            closing = closing[:-1]
        elif closing[-1:] not in ("'", '"'):
            begins = before in "=,;(["  # an apostrophe inside a word is not a quote
            closing += {"(": ")", "[": "]"}.get(c, c if c in "'\"" and begins else "")
        before = before if c.isspace() else c
    if closing:
        raise UsageError(f"--sweep: {parts[-1].strip()!r} lacks {closing[::-1]}")
    return [part.strip() for part in parts]


def _knob(name: str) -> str:
    return name.strip().removeprefix("config.")


def _unquoted(value: str) -> str:
    return value[1:-1] if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"" else value


def own_grid(recipe: str) -> list[Point]:
    """Returns the points from the function `get_sweep()` in a recipe's file.

    Raises:
      UsageError: there is no such function, it fails, or it does not return points.
    """
    path = recipe_files.recipe_file(recipe.partition(":")[0])
    with recipe_files.running(path) as module:
        get_sweep = getattr(module, "get_sweep", None)
        if get_sweep is None:
            raise UsageError(f"--sweep=config needs a function get_sweep() in {path}")
        points = get_sweep()
    return listed(points)


def listed(points: Sequence[Mapping[str, Any]]) -> list[Point]:
    """Converts what a recipe's `get_sweep()` returned, a list of {knob: value}, to points.

    Raises:
      UsageError: it is not such a list.
    """
    given = [points] if not isinstance(points, list | tuple) else points
    for point in given:
        if given is not points or not isinstance(point, Mapping):
            raise UsageError(
                f"get_sweep() returned {type(point).__name__} {str(point)[:60]!r}; allowed: a list "
                "of {knob: value}"
            )
    return [{_knob(str(knob)): str(value) for knob, value in point.items()} for point in points]


def names(points: Sequence[Point]) -> list[str]:
    """Returns the names of the points' directories, `seed=1+method_args.threshold=0.9`.

    Raises:
      UsageError: there are no points, two share a directory, or a name is too long.
    """
    found = [
        re.sub(r"[^\w.@=+-]", "_", "+".join(f"{knob}={value}" for knob, value in point.items()))
        for point in points
    ]
    twice = [name for i, name in enumerate(found) if not name or name in found[:i]]
    if twice or not found:
        raise UsageError(f"--sweep has {f'{twice[0]!r} twice' if twice else 'no points'}")
    if (longest := max(len(os.fsencode(name)) for name in found)) > _LONGEST:
        raise UsageError(
            f"--sweep makes a directory whose name has {longest} bytes; allowed: up to {_LONGEST}"
        )
    return found
