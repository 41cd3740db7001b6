"""Knobs -> what they must be. Every error names the field, the value and what is allowed."""

import inspect
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from ssljax.errors import UsageError


def require_range(config: Any, name: str, low: float, high: float | None, kind: str) -> None:
    """The knob is a finite number between `low` and `high`; None: no limit.

    `low` itself is allowed if `kind` is from, and not if it is above.
    """
    value = config
    for key in name.split("."):
        value = getattr(value, key)
    below = value < low or (kind == "above" and value == low)
    if not math.isfinite(value) or below or (high is not None and value > high):
        allowed = f"{kind} {low}" + (" up" if high is None else f" to {high}")
        raise UsageError(f"config.{name} is {value}; allowed: {allowed}")


def require_choice(config: Any, name: str, choices: Sequence[str]) -> None:
    """The knob is one of `choices`."""
    value = getattr(config, name)
    if value not in choices:
        raise UsageError(f"config.{name} is {value!r}; allowed: {', '.join(choices)}")


@contextmanager
def naming(field: str) -> Iterator[None]:
    """Turns what plain functions raise about their arguments into an error that names the field."""
    try:
        yield
    except UsageError:
        raise
    except (TypeError, ValueError) as error:
        raise UsageError(f"{field}: {error}") from error


def call(function: Callable[..., Any], config: Any, args: str, **fixed: Any) -> Any:
    """Calls `function` with the keyword arguments of `config[args]`, checked by name first."""
    given = config[args].to_dict()
    valid = [name for name in inspect.signature(function).parameters if name not in fixed]
    for name in given:
        if name not in valid:
            raise UsageError(
                f"config.{args}.{name} does not exist; allowed: {', '.join(valid) or 'none'}"
            )
    with naming(f"config.{args}"):
        return function(**given, **fixed)
