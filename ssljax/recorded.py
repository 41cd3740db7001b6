"""What a run directory records, for whoever reads the run and has not trained it.

A run directory can be somebody else's. Its recipe joins no processes, copies nothing from a URL,
takes no compiled programs from a folder, and runs code that is not this package's only if whoever
reads it names that code.
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

# A data set of TFDS whose script others have written, not a version of one: `huggingface:mnist`.
_COMMUNITY = re.compile(r"tfds:[^/:]+:(?!\d)")

if TYPE_CHECKING:
    from ssljax.data.datasets import Dataset
    from ssljax.data.splits import Split
    from ssljax.data.streaming import StreamedDataset

# Knobs that say what a run is read with: where its data are, or which others.
DATA = frozenset({"data_dir", "dataset", "image_size", "split_file", "stage.data_url", "stream"})
# What the recipe says of the machine that it was trained on.
_MACHINE = {
    "distributed": {"coordinator": "", "num_processes": 0, "process_id": 0, "auto": False},
    "stage": {"data_url": "", "train_url": ""},
    "compilation_cache": "",
    "feature_cache": "",
    "cpu_devices": 0,
}
# Knobs that name code, and with a dot code of one's own; and one that can be a URL.
CODE = ("dataset", "data_dir", "method", "model", "augment.weak", "augment.strong", "augment.type")


def config(
    recorded: Mapping[str, Any],
    given: Sequence[str] = (),
    *,
    where: str,
    allowed: Collection[str] = (),
    code: Collection[str] = (),
) -> ml_collections.ConfigDict:
    """A recorded recipe with overrides, complete, without what is another machine's.

    Args:
      recorded: `config.json`, of any version.
      given: `<knob>=<value>`.
      where: it was recorded, for messages.
      allowed: knobs that can be given; those of `CODE` can be given as they were recorded.
      code: of `CODE`, those that will be called or read.

    Raises:
      UsageError: it is damaged; a knob is given that is not allowed; or it names code of one's
        own that is not given.
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
                f"--config.{override}: {where} has {before.get(knob)!r}; allowed: this one"
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
    """As `config`, of a run directory."""
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
    """Whether a knob's value names a URL, or code that is not ssljax's or that TFDS would fetch."""
    if knob == "data_dir" or _COMMUNITY.match(name):
        return "://" in name or knob == "dataset"
    if knob != "dataset":
        return "." in name
    from ssljax.data import splits

    return "." in splits.function_of(name)


class Data(NamedTuple):
    """The images that a run is read with."""

    dataset: "Dataset | StreamedDataset"
    split: "Split"
    is_own: bool  # whether they are those that the run was trained with
    name: str  # `config.dataset`


def load_data(workdir: Path, given: Sequence[str] = (), *, allowed: Collection[str] = DATA) -> Data:
    """The data of a run, or others that are given, which have its classes and its images' size.

    Of others, only the test images are meant.

    Raises:
      UsageError: they cannot be read; they are no longer those that the run was trained with, and
        no others are given; or they are of other classes or another size.
    """
    from ssljax import parts
    from ssljax.data import fingerprint, splits
    from ssljax.run import resume

    found = of_run(workdir, given, allowed=allowed, code=("dataset", "data_dir"))
    named = {override.partition("=")[0] for override in given}
    before, after = (
        splits.without_place(str(x["dataset"])) for x in (read_json(workdir / "config.json"), found)
    )
    if is_own := before == after:
        if found.split_file and "split_file" not in named:
            found.split_file = str(workdir / "split.json")  # the run has kept it
    else:
        found.dataset, found.split_file = splits.whole(found.dataset), ""
    if found.split_file or not is_own:
        found.labels_per_class = "natural"  # nothing is drawn
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
