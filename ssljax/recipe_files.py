"""Recipe files: those that ship with the package, known by name, and any other file."""

import contextlib
import difflib
import importlib.util
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from ssljax import lookup, paths
from ssljax.errors import UsageError

# Modules shared by recipes.
_SHARED = frozenset({"__init__", "base", "digits", "imagenet", "published", "short"})


def shipped() -> dict[str, Path]:
    """Returns the recipes that ship with the package, by name."""
    files = sorted(_folder().glob("*.py"))
    return {path.stem: path for path in files if path.stem not in _SHARED}


def _folder() -> Path:
    package = Path(__file__).parent
    inside = package / "configs"  # in an installed package; a checkout has it beside the package
    return inside if inside.is_dir() else package.parent / "configs"


def summary(path: Path) -> str:
    """Returns the first line of a recipe's docstring."""
    match = re.match(r'\s*"""(.+?)(\n|""")', path.read_text(encoding="utf-8"))
    return match[1].strip() if match else ""


def recipe_file(recipe: str) -> Path:
    """Returns the file of a recipe, given as a path or as the name of a recipe in the package.

    Raises:
      UsageError: there is none; the message names the nearest recipe.
    """
    path = Path(paths.expand(recipe, "--config"))
    if path.is_file():
        return path
    names = shipped()
    if recipe in names:
        return names[recipe]
    nearest = difflib.get_close_matches(path.stem, names, n=1, cutoff=0.0)[0]
    raise UsageError(
        f"--config={recipe} is neither a file nor a recipe; the nearest recipe is {nearest}, "
        "--mode=recipes lists all"
    )


def load_module(path: Path) -> ModuleType:
    """Runs a recipe's file and returns it as a module.

    Raises:
      UsageError: the file cannot be run; the message names the line.
    """
    with running(path) as module:
        return module


@contextlib.contextmanager
def running(path: Path) -> Iterator[ModuleType]:
    """Runs a recipe's file. `from configs import …` finds the file's folder or the package's, also
    in functions called within the context.

    Raises:
      UsageError: the file, or code called within the context, fails; the message names the line.
    """
    try:
        with _importing(path.absolute()):
            yield _execute(path)
    except UsageError:
        raise
    except (Exception, SystemExit) as error:  # the file can raise anything
        raise UsageError(f"--config={path} fails: {lookup.reason(error)}") from error


def _execute(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"recipe_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise UsageError(f"--config={path} is not a recipe; allowed: a Python file, <name>.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@contextlib.contextmanager
def _importing(path: Path) -> Iterator[None]:
    """Sets the module search path for a recipe's file while it runs."""
    before, modules = [*sys.path], _pop_configs()
    home = path.parents[1] if path.parent.name == "configs" else path.parent
    if path.parent != _folder():
        sys.path.insert(0, str(home))
    folders = [Path(entry) / "configs" for entry in sys.path]
    if not any((folder / "__init__.py").exists() for folder in folders):
        # One package from several folders: beside the file, on the search path, and the package's.
        sys.modules["configs"] = ModuleType("configs")
        sys.modules["configs"].__path__ = [*map(str, folders), str(_folder())]
    try:
        yield
    finally:
        sys.path[:] = before
        _pop_configs()
        sys.modules.update(modules)


def _pop_configs() -> dict[str, ModuleType]:
    """Removes the package `configs` from the loaded modules, as several packages have that name."""
    names = [name for name in sys.modules if name.partition(".")[0] == "configs"]
    return {name: sys.modules.pop(name) for name in names}
