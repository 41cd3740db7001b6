"""What arguments and knobs must be. Every error names the field, the value and what is allowed."""

import inspect
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from ssljax.errors import UsageError


def check_range(
    name: str, value: float, low: float = 0, high: float = math.inf, *, open_low: bool = False
) -> None:
    """Raises ValueError unless `value` is a finite number from `low` to `high`.

    Args:
      open_low: whether `low` itself is refused.
    """
    below = value <= low if open_low else value < low
    if below or value > high or not math.isfinite(value):
        start = f"above {low}" if open_low else f"from {low}"
        end = f" to {high}" if high < math.inf else "" if open_low else " up"
        raise ValueError(f"{name} is {value}; allowed: {start}{end}")


def check_positive(**arguments: float) -> None:
    """Raises ValueError for an argument that is not above 0 and finite."""
    for name, value in arguments.items():
        check_range(name, value, open_low=True)


def check_non_negative(**arguments: float) -> None:
    """Raises ValueError for an argument that is not 0 or more and finite."""
    for name, value in arguments.items():
        check_range(name, value)


def check_probability(**arguments: float) -> None:
    """Raises ValueError for an argument that is not from 0 to 1."""
    for name, value in arguments.items():
        check_range(name, value, 0, 1)


def check_choice(name: str, value: Any, choices: Iterable[Any]) -> None:
    """Raises ValueError, which lists them, for a value that is none of the choices."""
    choices = list(choices)
    if value not in choices:
        raise ValueError(f"{name} is {value!r}; allowed: {', '.join(map(str, choices))}")


@contextmanager
def prefix_errors(field: str) -> Iterator[None]:
    """Turns what plain functions raise about their arguments into an error that names the field.

    Raises:
      UsageError: a ValueError or TypeError was raised inside; "" adds no field to its message.
    """
    try:
        yield
    except UsageError:
        raise
    except (TypeError, ValueError) as error:
        raise UsageError(f"{field}: {error}" if field else str(error)) from error


def call(function: Callable[..., Any], config: Any, args: str, **fixed: Any) -> Any:
    """Calls `function` with the keyword arguments of `config[args]`, checked by name first."""
    given = config[args].to_dict()
    valid = [name for name in inspect.signature(function).parameters if name not in fixed]
    for name in given:
        if name not in valid:
            raise UsageError(
                f"config.{args}.{name} does not exist; allowed: {', '.join(valid) or 'none'}"
            )
    with prefix_errors(f"config.{args}"):
        return function(**given, **fixed)
