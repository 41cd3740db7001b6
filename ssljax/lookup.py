"""Names in configs -> functions and their arguments. There is no registry.

A plain name is looked up in the modules of the package; a dotted one, `my_package.my_method`, is
imported, so that nobody has to edit the package.
"""

import ast
import functools
import importlib
import inspect
import os
import pkgutil
import sys
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from ssljax.errors import UsageError

PACKAGES = {"method": "methods", "model": "models"}  # knob -> where its plain names are
# Arguments that are not the config's.
_FIXED = frozenset({"num_classes", "dtype", "axis_name", "parent", "name"})


def find(field: str, name: str, modules: Iterable[ModuleType]) -> Callable[..., Any]:
    """What `name` is called in one of `modules`, or if it has a dot, what is imported under it.

    It can be any public lower-case function, class or partial that is defined there.

    Raises:
      UsageError: there is none; the message names `field` and lists what there is.
    """
    if "." in name:
        return find_dotted(field, name)
    known: dict[str, Callable[..., Any]] = {}
    for module in modules:
        for key, value in vars(module).items():
            defined = isinstance(value, partial) or (
                callable(value) and getattr(value, "__module__", None) == module.__name__
            )
            if defined and key.islower() and not key.startswith("_"):
                known[key] = value
    if name not in known:
        raise UsageError(
            f"{field} {name!r} does not exist; there are: {', '.join(sorted(known))}; one of your "
            "own is written <module>.<name>"
        )
    return known[name]


def find_dotted(field: str, name: str) -> Callable[..., Any]:
    """The function or class that is imported under a dotted name; the current folder counts.

    Raises:
      UsageError: it cannot be imported, or cannot be called.
    """
    module, _, attribute = name.rpartition(".")
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.append(os.getcwd())
    try:
        found = getattr(importlib.import_module(module), attribute)
    except ModuleNotFoundError as error:
        raise UsageError(f"{field} {name!r} cannot be imported: {error}") from error
    except AttributeError as error:
        raise UsageError(f"{field} {name!r} does not exist: {error}") from error
    if not callable(found):
        raise UsageError(
            f"{field} {name!r} is a {type(found).__name__}; allowed: functions, classes"
        )
    return found


def modules_of(package: ModuleType, *, without: Iterable[str] = ()) -> list[ModuleType]:
    """The modules of a package, imported; all but those called `without`."""
    names = [info.name for info in pkgutil.iter_modules(package.__path__)]
    return [importlib.import_module(f"{package.__name__}.{n}") for n in names if n not in without]


def arguments(knob: str, name: str, *, trusted: bool = False) -> dict[str, Any]:
    """The arguments that `config.<knob>_args` can hold, with their defaults.

    Plain names are read from the source without importing it, so that neither JAX nor Flax is
    needed. An argument without a default, or with one that is no literal, is left out.

    Args:
      knob: `method` or `model`.
      trusted: whether a dotted name is imported; else it has no arguments that are known.
    """
    if "." not in name:
        return dict(_declared(PACKAGES[knob], name))
    if not trusted:
        return {}
    signature = inspect.signature(find_dotted(f"config.{knob}", name))
    return {
        key: parameter.default
        for key, parameter in signature.parameters.items()
        if key not in _FIXED and isinstance(parameter.default, _LITERALS)
    }


_LITERALS = (bool, int, float, str, tuple, type(None))


@functools.lru_cache
def _declared(package: str, name: str) -> dict[str, Any]:
    for path in sorted((Path(__file__).parent / package).glob("*.py")):
        body = ast.parse(path.read_text()).body
        found = _defaults(body, name)
        if found is not None:
            return {k: v for k, v in found.items() if k not in _FIXED}
    return {}


def _defaults(body: list[ast.stmt], name: str) -> dict[str, Any] | None:
    """The literal defaults of what a module calls `name`: a function, a dataclass, or another name
    or a partial of one."""
    for node in body:
        if isinstance(node, ast.FunctionDef) and node.name == name:
            pairs = zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)
            return _literals({arg.arg: default for arg, default in pairs})
        if isinstance(node, ast.ClassDef) and node.name == name:
            fields = [x for x in node.body if isinstance(x, ast.AnnAssign)]
            return _literals({ast.unparse(x.target): x.value for x in fields})
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name:
            value = node.value
            if isinstance(value, ast.Name):
                return _defaults(body, value.id)
            if isinstance(value, ast.Call) and ast.unparse(value.func) == "partial":
                inner = _defaults(body, ast.unparse(value.args[0])) or {}
                return inner | _literals({k.arg: k.value for k in value.keywords if k.arg})
    return None


def _literals(defaults: dict[str, ast.expr | None]) -> dict[str, Any]:
    found = {}
    for name, node in defaults.items():
        if node is not None and not any(isinstance(x, ast.Name) for x in ast.walk(node)):
            found[name] = eval(compile(ast.Expression(node), "<default>", "eval"), {})
    return found
