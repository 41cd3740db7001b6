"""The files of recipes: those that ship with the package, known by their names, and any other."""

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

# What recipes share.
_SHARED = frozenset({"__init__", "base", "digits", "imagenet", "published"})


def shipped() -> dict[str, Path]:
    """The recipes that ship with the package, by their names."""
    files = sorted(_folder().glob("*.py"))
    return {path.stem: path for path in files if path.stem not in _SHARED}


def _folder() -> Path:
    package = Path(__file__).parent
    inside = package / "configs"  # of an installed package; in a checkout it lies beside it
    return inside if inside.is_dir() else package.parent / "configs"


def summary(path: Path) -> str:
    """The first line of a recipe's docstring."""
    match = re.match(r'\s*"""(.+?)(\n|""")', path.read_text(encoding="utf-8"))
    return match[1].strip() if match else ""


def recipe_file(recipe: str) -> Path:
    """The file of a recipe: a path, or the name of one that ships with the package.

    Raises:
      UsageError: there is none; names the nearest.
    """
    path = Path(paths.expand(recipe, "--config"))
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
    """What a recipe's file defines.

    Raises:
      UsageError: the file cannot be run; names the line.
    """
    with running(path) as module:
        return module


@contextlib.contextmanager
def running(path: Path) -> Iterator[ModuleType]:
    """Runs a recipe's file. `from configs import …` finds the folder of the file, or ours, also in
    functions that are called inside.

    Raises:
      UsageError: the file, or what is called inside, fails; names the line.
    """
    try:
        with _importing(path.absolute()):
            yield _execute(path)
    except UsageError:
        raise
    except (Exception, SystemExit) as error:  # whatever the file does
        raise UsageError(f"--config={path} fails: {lookup.reason(error)}") from error


def _execute(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"recipe_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise UsageError(f"--config={path} is no recipe; allowed: a Python file, <name>.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@contextlib.contextmanager
def _importing(path: Path) -> Iterator[None]:
    """Where a recipe's file finds what it imports, for as long as it is run."""
    before, modules = [*sys.path], _pop_configs()
    home = path.parents[1] if path.parent.name == "configs" else path.parent
    if path.parent != _folder():
        sys.path.insert(0, str(home))
    folders = [Path(entry) / "configs" for entry in sys.path]
    if not any((folder / "__init__.py").exists() for folder in folders):
        # Parts of one package: beside the file, on the path, and ours, whose folder is not there.
        sys.modules["configs"] = ModuleType("configs")
        sys.modules["configs"].__path__ = [*map(str, folders), str(_folder())]
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
