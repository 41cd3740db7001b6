"""Validation of arguments and config values.

Every error names the field, the value and what is allowed.
"""

import difflib
import inspect
import math
import numbers
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import UnionType
from typing import Any, Union, get_args, get_origin

import ml_collections

from ssljax import lookup
from ssljax.errors import UsageError
from ssljax.lookup import FIXED

# Descriptions of the allowed types, for messages.
KINDS: dict[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    tuple: "values such as (10, 20)",
    type(None): "None",
    ml_collections.ConfigDict: "a ConfigDict of its knobs",
}
# The types whose values are accepted as one of the above.
_TYPES = {
    int: numbers.Integral,
    float: numbers.Real,
    tuple: tuple | list,
}


def check_range(
    name: str, value: float, low: float = 0, high: float = math.inf, *, open_low: bool = False
) -> None:
    """Raises ValueError unless `value` is a finite number from `low` to `high`.

    Args:
      open_low: whether `low` itself is rejected.
    """
    below = value <= low if open_low else value < low
    if below or value > high or not math.isfinite(value):
        start = f"above {low}" if open_low else f"from {low}"
        end = f" to {high}" if high < math.inf else "" if open_low else " up"
        raise ValueError(f"{name} is {value}; allowed: {start}{end}")


def check_positive(**arguments: float) -> None:
    """Raises ValueError unless every argument is finite and above 0."""
    for name, value in arguments.items():
        check_range(name, value, open_low=True)


def check_non_negative(**arguments: float) -> None:
    """Raises ValueError unless every argument is finite and at least 0."""
    for name, value in arguments.items():
        check_range(name, value)


def check_probability(**arguments: float) -> None:
    """Raises ValueError unless every argument is from 0 to 1."""
    for name, value in arguments.items():
        check_range(name, value, 0, 1)


def check_choice(name: str, value: Any, choices: Iterable[Any]) -> None:
    """Raises ValueError, listing the choices, for a value that is not one of them."""
    choices = list(choices)
    if value not in choices:
        raise ValueError(f"{name} is {value!r}; allowed: {', '.join(map(str, choices))}")


def check_kind(name: str, value: Any, annotation: Any) -> None:
    """Raises ValueError for a value whose type an annotation of plain types does not allow.

    Args:
      annotation: such as `int`, `float | None` or `tuple[int, ...]`; others allow every value.
    """
    is_union = get_origin(annotation) in (Union, UnionType)
    kinds = get_args(annotation) if is_union else (annotation,)
    plain = [get_origin(kind) or kind for kind in kinds]
    known = all(isinstance(kind, type) and kind in KINDS for kind in plain)
    if known and not any(_is_kind(value, kind) for kind in plain):
        allowed = " or ".join(KINDS[kind] for kind in plain)
        raise ValueError(f"{name} is {value!r}; allowed: {allowed}")
    for kind in kinds:
        if get_origin(kind) is tuple and isinstance(value, tuple | list):
            for part in value:
                check_kind(f"{name}, with {value!r},", part, get_args(kind)[0])


def _is_kind(value: Any, kind: Any) -> bool:
    is_bool = isinstance(value, bool)  # a bool is an int, too
    return is_bool if kind is bool else isinstance(value, _TYPES.get(kind, kind)) and not is_bool


def check_kinds(field: str, function: Callable[..., Any], given: Mapping[str, Any]) -> None:
    """Raises ValueError for an argument whose type differs from the function's signature."""
    for key, parameter in inspect.signature(function).parameters.items():
        if key in given:
            check_kind(f"{field}.{key}", given[key], parameter.annotation)


@contextmanager
def prefix_errors(field: str) -> Iterator[None]:
    """Turns errors that plain functions raise about their arguments into errors that name the
    field, and errors raised by user code into errors that name its file and line.

    Raises:
      UsageError: such an error was raised inside. An empty `field` adds nothing to its message.
    """
    try:
        yield
    except UsageError:
        raise
    except Exception as error:
        place = lookup.place(error)
        if not place and not isinstance(error, TypeError | ValueError):
            raise
        text = lookup.reason(error) if place else " ".join(str(error).split())
        raise UsageError(f"{field}: {text}" if field else text) from error


@contextmanager
def missing_knobs() -> Iterator[None]:
    """Turns ml_collections' error about a knob missing from a config into a one-line error."""
    try:
        yield
    except AttributeError as error:
        if isinstance(error.obj, ml_collections.ConfigDict):
            knob = " ".join(str(error).split())
            raise UsageError(
                f"the config has no {knob}; ssljax/defaults.py has all knobs"
            ) from error
        raise


def call(function: Callable[..., Any], config: Any, knob: str, **fixed: Any) -> Any:
    """Calls `function` with `config[<knob>_args]`, after checking their names.

    Args:
      function: the function that `config[knob]` names.
      fixed: further arguments, passed only if the function accepts them.
    """
    name, given = config[knob], config[f"{knob}_args"].to_dict()
    parameters = inspect.signature(function).parameters
    takes_any = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    variadic = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    own = [key for key, p in parameters.items() if key not in FIXED and p.kind not in variadic]
    for key in given:
        if key in own or (takes_any and key not in FIXED):
            continue
        allowed = f"allowed: {', '.join(own) or 'none'}"
        if difflib.get_close_matches(key, own, n=1, cutoff=0.7):
            raise UsageError(f"config.{knob}_args.{key} does not exist; {allowed}")
        raise UsageError(
            f"config.{knob}_args.{key} is not an argument of config.{knob} {name!r}; {allowed}; "
            f"a recipe for another {knob} sets it: replace config.{knob}_args in your recipe"
        )
    taken = {key: value for key, value in fixed.items() if takes_any or key in parameters}
    with prefix_errors(""):
        check_kinds(f"config.{knob}_args", function, given)
    with prefix_errors(f"config.{knob}_args"):
        return function(**given, **taken)


def check_returned(field: str, name: str, value: Any, kind: type) -> None:
    """Raises UsageError unless the value that `name` returned is a `kind`."""
    if not isinstance(value, kind):
        raise UsageError(
            f"{field} {name!r} returned a {type(value).__name__}; allowed: "
            f"{kind.__module__}.{kind.__qualname__}"
        )
