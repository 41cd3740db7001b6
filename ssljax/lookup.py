"""Names in configs -> functions. There is no registry: a name is looked up in its modules."""

import importlib
import pkgutil
from collections.abc import Callable, Iterable
from functools import partial
from types import ModuleType
from typing import Any

import flax.linen as nn

import ssljax.models
from ssljax.checks import call
from ssljax.errors import UsageError


def find(field: str, name: str, modules: Iterable[ModuleType]) -> Callable[..., Any]:
    """What `name` is called in one of `modules`.

    It can be any public lower-case function, class or partial that is defined there.

    Raises:
      UsageError: there is none; the message names `field` and lists what there is.
    """
    known: dict[str, Callable[..., Any]] = {}
    for module in modules:
        for key, value in vars(module).items():
            defined = isinstance(value, partial) or (
                callable(value) and getattr(value, "__module__", None) == module.__name__
            )
            if defined and key.islower() and not key.startswith("_"):
                known[key] = value
    if name not in known:
        raise UsageError(f"{field} {name!r} does not exist; there are: {', '.join(sorted(known))}")
    return known[name]


def modules_of(package: ModuleType, *, without: str = "") -> list[ModuleType]:
    """The modules of a package, imported; all but the one called `without`."""
    names = [info.name for info in pkgutil.iter_modules(package.__path__)]
    return [importlib.import_module(f"{package.__name__}.{n}") for n in names if n != without]


def model(config: Any, **fixed: Any) -> nn.Module:
    """The network that `config.model` and `config.model_args` name.

    Args:
      fixed: arguments that are not the config's: `num_classes`, `dtype`, `axis_name`.
    """
    function = find("config.model", config.model, modules_of(ssljax.models, without="layers"))
    return call(function, config, "model_args", **fixed)
