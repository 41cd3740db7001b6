"""Looks up the functions that configs name, and their arguments. There is no registry.

A plain name is searched for in the package's modules. A dotted name, `my_package.my_method`, is
imported, so that user code needs no change to the package.
"""

import ast
import contextlib
import difflib
import functools
import importlib
import inspect
import os
import pkgutil
import re
import site
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from ssljax.errors import UsageError

PACKAGES = {"method": "methods", "model": "models"}  # knob -> subpackage of its plain names
# Arguments that a config cannot set.
FIXED = frozenset({"num_classes", "dtype", "axis_name", "remat", "frozen", "parent", "name"})


def find(field: str, name: str, modules: Iterable[ModuleType]) -> Callable[..., Any]:
    """Returns what `name` refers to in one of `modules`, or imports it if the name has a dot.

    It can be any public lower-case function, class or partial defined in these modules.

    Raises:
      UsageError: there is none; the message names `field` and lists the known names.
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
            f"{field} {name!r} does not exist; there are: {', '.join(sorted(known))}; your own "
            "are written <module>.<name>"
        )
    return known[name]


def find_dotted(field: str, name: str) -> Callable[..., Any]:
    """Imports a function or class by its dotted name; the current directory is searched, too.

    Raises:
      UsageError: it cannot be imported or called.
    """
    module, _, attribute = name.rpartition(".")
    if not all(part.isidentifier() for part in name.split(".")):
        raise UsageError(f"{field} is {name!r}; allowed: a name, or <module>.<name>")
    try:
        with _current_folder_counts():
            imported = importlib.import_module(module)
    except (Exception, SystemExit) as error:  # importing user code can raise anything
        raise UsageError(f"{field} {name!r} cannot be imported: {reason(error)}") from error
    if not hasattr(imported, attribute):
        there = [key for key, value in vars(imported).items() if callable(value)]
        near = ", ".join(difflib.get_close_matches(attribute, there))
        hint = f"; near it: {near}" if near else ""
        raise UsageError(f"{field} {name!r} does not exist: {module} has no {attribute}{hint}")
    found = getattr(imported, attribute)
    if not callable(found):
        raise UsageError(
            f"{field} {name!r} is a {type(found).__name__}; allowed: functions, classes"
        )
    return found


@contextlib.contextmanager
def _current_folder_counts() -> Iterator[None]:
    """Adds the current directory to the end of the module search path for the duration."""
    here = os.getcwd()
    added = here not in sys.path and "" not in sys.path  # scripts add their own folder instead
    if added:
        sys.path.append(here)
    importlib.invalidate_caches()  # notices files written a moment ago
    try:
        yield
    finally:
        if added:
            sys.path.remove(here)


def reason(error: BaseException) -> str:
    """Describes an error in user code on one line: the file, the line and the error's text."""
    if isinstance(error, SyntaxError):
        return f"{error.filename}, line {error.lineno}: {type(error).__name__}: {error.msg}"
    text = " ".join(str(error).replace("\\n", " ").split())
    # ml_collections prints the full config when a knob is misspelt.
    text = re.sub(r"Other fields present: .*?(?=Did you mean|$)", "", text).strip()
    if text[:1] == text[-1:] == "'" and text.count("'") == 2:  # a KeyError quotes its message
        text = text[1:-1].strip()
    return f"{place(error)}{type(error).__name__}: {text[:300]}"


def place(error: BaseException) -> str:
    """Returns `<file>, line <number>: ` of the user code that raised an error, or ""."""
    found = ""
    for frame in traceback.extract_tb(error.__traceback__):
        if not frame.filename.startswith(("<", *_NOT_THEIRS)):
            found = f"{frame.filename}, line {frame.lineno}: "
    return found


# Folders of Python, installed packages and this package.
_NOT_THEIRS = (
    *(sysconfig.get_path(kind) for kind in ("stdlib", "purelib", "platlib")),
    *site.getsitepackages(),
    str(Path(__file__).parent),
)


def modules_of(package: ModuleType, *, without: Iterable[str] = ()) -> list[ModuleType]:
    """Imports and returns the modules of a package, except those named in `without`."""
    names = [info.name for info in pkgutil.iter_modules(package.__path__)]
    return [importlib.import_module(f"{package.__name__}.{n}") for n in names if n not in without]


def arguments(knob: str, name: str, *, trusted: bool = False) -> dict[str, Any]:
    """Returns the arguments that `config.<knob>_args` can hold, with their defaults.

    Plain names are read from the source without importing it, so that neither JAX nor Flax is
    needed. An argument without a default, or with a default that is not a literal, is omitted.

    Args:
      knob: `method` or `model`.
      trusted: whether to import a dotted name; otherwise its arguments are unknown.
    """
    if "." not in name:
        return dict(declared(knob).get(name, {}))
    if not trusted:
        return {}
    return {
        key: parameter.default
        for key, parameter in _parameters(knob, name).items()
        if isinstance(parameter.default, _LITERALS)
    }


def without_default(knob: str, name: str) -> list[str]:
    """Returns the arguments of a dotted name that `arguments` omits."""
    if "." not in name:
        return []
    return [
        key
        for key, parameter in _parameters(knob, name).items()
        if not isinstance(parameter.default, _LITERALS)
    ]


_LITERALS = (bool, int, float, str, tuple, type(None))


def _parameters(knob: str, name: str) -> dict[str, inspect.Parameter]:
    function = find_dotted(f"config.{knob}", name)
    try:
        parameters = inspect.signature(function).parameters
    except ValueError as error:
        raise UsageError(f"config.{knob} {name!r} has no signature that can be read") from error
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {k: v for k, v in parameters.items() if k not in FIXED and v.kind in named}


def declared(knob: str) -> dict[str, dict[str, Any]]:
    """Maps the package's methods or models that have arguments to the arguments' defaults."""
    package = importlib.import_module(f"ssljax.{PACKAGES[knob]}")  # does not import its modules
    files = sorted(file for folder in package.__path__ for file in Path(folder).glob("*.py"))
    found: dict[str, dict[str, Any]] = {}
    for file in files:
        found |= _declared_in(file, file.stat().st_mtime_ns)
    return found


@functools.lru_cache
def _declared_in(file: Path, changed: int) -> dict[str, dict[str, Any]]:
    """Returns the declarations in one file.

    Args:
      changed: modification time; a modified file is read again.
    """
    del changed
    body, found = ast.parse(file.read_bytes()).body, {}
    for node in body:
        name = getattr(node, "name", "")
        if isinstance(node, ast.Assign):
            name = ast.unparse(node.targets[0])
        if name.islower() and not name.startswith("_") and (defaults := _defaults(body, name)):
            found[name] = {k: v for k, v in defaults.items() if k not in FIXED}
    return found


def _defaults(body: list[ast.stmt], name: str) -> dict[str, Any] | None:
    """Returns the literal defaults of the object that a module calls `name`: a function, a
    dataclass, or an alias or partial of one."""
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
