"""The command that trains a recorded run again."""

import functools
import shlex
from collections.abc import Mapping
from typing import Any

from ssljax import lookup, recipe_files
from ssljax.errors import UsageError
from ssljax.log import printable
from ssljax.report.runs import Run
from ssljax.run import resume

# Config fields for the length of a run and its images, which can change when a run is resumed.
_LENGTH = frozenset({"num_steps", "num_epochs", "eval_every", "log_every", "split_file"})
# Config fields of the machine, and of the program that trained several seeds at once.
_MACHINE = resume.RESUMABLE - _LENGTH
_OPEN = ("method_args.", "model_args.")  # prefixes of config fields that a recipe need not have


def command(run: Run) -> str:
    """A shell command with the recipe that needs the fewest overrides; "": no recipe fits.

    It works if the run's initial weights, its data and any code outside this package are there.
    """
    if not run.config:
        return ""
    wanted = _knobs(run.config)
    found = [
        (name, overrides)
        for name, knobs in _recipes(str(run.config["method"]))
        if (overrides := _overrides(wanted, knobs)) is not None
    ]
    if not found:
        return ""
    name, overrides = min(found, key=lambda pair: len(pair[1]))
    flags = [f"--config={name}", *(f"--config.{knob}={value}" for knob, value in overrides.items())]
    return shlex.join(["python", "launch.py", *flags, f"--workdir=runs/again/{_place(run)}"])


def _place(run: Run) -> str:
    """The last part of the run's directory, as a name for any shell and file system."""
    name = printable(run.path.absolute().name)
    return "".join(c if c.isalnum() or c in "._=+-@" else "_" for c in name)


def _overrides(wanted: Mapping[str, Any], recipe: Mapping[str, Any]) -> dict[str, str] | None:
    """The overrides, as text, that turn a recipe into a run's config; None: there are none."""
    differing = {
        knob: value for knob, value in wanted.items() if recipe.get(knob, _MISSING) != value
    }
    texts = {knob: _text(value) for knob, value in differing.items()}
    known = {
        knob: text
        for knob, text in texts.items()
        if text is not None and (knob in recipe or knob.startswith(_OPEN))
    }
    return known if len(known) == len(texts) else None


_MISSING = object()


def _text(value: Any) -> str | None:
    """A value as the text after `--config.<field>=`; None: a command line cannot express it."""
    if value is None:
        return None
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"({', '.join(map(repr, value))}{',' if len(value) == 1 else ''})"
    return str(value)


def _knobs(config: Mapping[str, Any]) -> dict[str, Any]:
    return {knob: value for knob, value in resume.knobs(config).items() if knob not in _MACHINE}


@functools.cache
def _recipes(method: str) -> tuple[tuple[str, dict[str, Any]], ...]:
    """The package's recipes of a method, and their config fields as runs record them."""
    others = tuple(f"{name}_" for name in lookup.declared("method") if name != method)
    found = []
    for name, path in recipe_files.shipped().items():
        if name.startswith(others) and not name.startswith(f"{method}_"):
            continue
        try:
            with recipe_files.running(path) as module:
                config = module.get_config().to_dict()
        except UsageError:  # it needs a package that is not installed
            continue
        if config["method"] == method:
            found.append((name, _knobs(config)))
    return tuple(found)
