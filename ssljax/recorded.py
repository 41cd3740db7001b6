"""The config and data recorded in a run directory, for code that reads a run.

A run directory may come from someone else. Its recipe therefore joins no processes, copies nothing
from a URL, reads no compiled programs from a folder, and runs code from outside this package only
if the reader names that code.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import ml_collections

from ssljax import defaults, overrides
from ssljax.checks import prefix_errors
from ssljax.errors import UsageError
from ssljax.storage import runs
from ssljax.storage.files import read_json

# Matches a TFDS data set of a community namespace, `huggingface:mnist`, but not a version.
_COMMUNITY = re.compile(r"tfds:[^/:]+:(?!\d)")

if TYPE_CHECKING:
    from ssljax.data.datasets import Dataset
    from ssljax.data.splits import Split
    from ssljax.data.streaming import StreamedDataset

# Knobs that say where the run's data are now, or which other data to read.
DATA = frozenset({"data_dir", "dataset", "image_size", "split_file", "stage.data_url", "stream"})
# Settings in the recipe that belong to the machine it was trained on.
_MACHINE = {
    "distributed": {"coordinator": "", "num_processes": 0, "process_id": 0, "auto": False},
    "stage": {"data_url": "", "train_url": ""},
    "compilation_cache": "",
    "feature_cache": "",
    "cpu_devices": 0,
}
# Knobs that name code (user code if the name has a dot), and one that can be a URL.
CODE = ("dataset", "data_dir", "method", "model", "augment.weak", "augment.strong", "augment.type")


def config(
    recorded: Mapping[str, Any],
    given: Sequence[str] = (),
    *,
    where: str,
    allowed: Collection[str] = (),
    code: Collection[str] = (),
) -> ml_collections.ConfigDict:
    """Returns a recorded recipe, completed and with overrides, without another machine's settings.

    Args:
      recorded: the content of `config.json`, of any version.
      given: overrides `<knob>=<value>`.
      where: the place it was recorded, for messages.
      allowed: knobs that can be overridden; those of `CODE` can be repeated as recorded.
      code: those knobs of `CODE` whose code will be called or whose URL will be read.

    Raises:
      UsageError: the record is damaged, an override is not allowed, or the recipe names foreign
        code that `given` does not repeat.
    """
    full = overrides.merged(overrides.merged(defaults.get_config().to_dict(), recorded), _MACHINE)
    with prefix_errors(where):
        found = ml_collections.ConfigDict(full)
    overrides.check_kinds(found)
    before = overrides.flatten(full)
    for override in given:
        knob, _, value = override.partition("=")
        if knob not in allowed and knob not in CODE:
            names = ", ".join(sorted({*allowed}))
            raise UsageError(
                f"--config.{override}: the recipe is that of {where}; allowed: {names}"
            )
        if knob not in allowed and value != before.get(knob):
            raise UsageError(
                f"--config.{override}: {where} has {before.get(knob)!r}; allowed: the same value"
            )
    _require_named(before, given, where, code)
    return overrides.change(found, [x for x in given if x.partition("=")[0] in allowed])


def of_run(
    workdir: Path,
    given: Sequence[str] = (),
    *,
    allowed: Collection[str] = (),
    code: Collection[str] = (),
) -> ml_collections.ConfigDict:
    """Returns the recipe of a run directory, as `config` does."""
    path = workdir / "config.json"
    return config(read_json(path), given, where=str(path), allowed=allowed, code=code)


def _require_named(
    before: Mapping[str, Any], given: Sequence[str], where: str, code: Collection[str]
) -> None:
    named = {override.partition("=")[0] for override in given}
    for knob in code:
        name = str(before.get(knob, ""))
        if knob not in named and _is_foreign(knob, name):
            is_url = knob == "data_dir"
            what, verb = ("a URL", "be read") if is_url else ("code that is not ssljax's", "run")
            raise UsageError(
                f"{where} names {what}, config.{knob} {name}; --config.{knob}={name} lets it {verb}"
            )


def _is_foreign(knob: str, name: str) -> bool:
    """Whether a knob's value names a URL, or code of neither ssljax nor TFDS itself."""
    if knob == "data_dir" or _COMMUNITY.match(name):
        return "://" in name or knob == "dataset"
    if knob != "dataset":
        return "." in name
    from ssljax.data import splits

    return "." in splits.function_of(name)


class Data(NamedTuple):
    """The images used to evaluate or inspect a run."""

    dataset: "Dataset | StreamedDataset"
    split: "Split"
    is_own: bool  # whether the run was trained with them
    name: str  # `config.dataset`


def load_data(workdir: Path, given: Sequence[str] = (), *, allowed: Collection[str] = DATA) -> Data:
    """Loads the data of a run, or other data with the same classes and image size.

    Only the test images of other data are used.

    Raises:
      UsageError: the data cannot be read; the run's data have changed and no others are given; or
        the others differ in classes or image size.
    """
    from ssljax import parts
    from ssljax.data import fingerprint, split_file, splits
    from ssljax.run import resume

    found = of_run(workdir, given, allowed=allowed, code=("dataset", "data_dir"))
    named = {override.partition("=")[0] for override in given}
    before, after = (
        splits.without_place(str(x["dataset"])) for x in (read_json(workdir / "config.json"), found)
    )
    if is_own := before == after:
        if found.split_file and "split_file" not in named:
            found.split_file = str(workdir / "split.json")  # saved by the run
    else:
        found.dataset, found.split_file = splits.whole(found.dataset), ""
    if found.split_file or not is_own:
        found.labels_per_class = "natural"  # no labelled set is drawn
    try:
        data, split = parts.load_data(found)
    except split_file.OtherImages:
        if "dataset" not in named:
            raise
        # The name is that of the run's data in another place, but the images there are others.
        is_own, found.dataset, found.split_file = False, splits.whole(found.dataset), ""
        data, split = parts.load_data(found)

    known, record = runs.data_record(workdir), fingerprint.record(data)
    if problem := resume.other_kind(str(workdir), known, record):
        raise UsageError(problem)
    problem = resume.other_images(str(workdir), known, record)
    if is_own and problem and "dataset" not in named:
        raise UsageError(f"{problem}; --config.dataset=<…> names others to evaluate on")
    if is_own and not problem:
        resume.require_same_split(workdir, splits.fingerprint(split))
    return Data(data, split, is_own and not problem, found.dataset)
