"""Groups of runs that only differ in their seeds: means and standard deviations of metrics."""

import dataclasses
import statistics
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ssljax.data import splits
from ssljax.data.labels import are_uneven
from ssljax.overrides import flatten
from ssljax.report.runs import Run
from ssljax.run import results
from ssljax.run.resume import RESUMABLE

# Fields that runs of one group may differ in: seeds, and fields that do not affect the results.
_SEEDS = ("seed", "num_seeds", "split_file")
_SAME = (RESUMABLE | set(_SEEDS)) - {"num_steps", "num_epochs", "eval_every"}
OF_TWO = (
    "The standard deviation of two runs is their difference divided by √2, and says little about "
    "how far a third one would lie."
)
_STATUSES = ("finished", "unfinished", "failed")


class Spread(NamedTuple):
    """A mean over runs; `std` has n − 1 in its denominator, and is None for a single run."""

    mean: float
    std: float | None
    runs: int = 0  # number of runs; 0: the source does not say


@dataclasses.dataclass(frozen=True)
class Group:
    """Runs of one experiment with the same status."""

    method: str
    data_set: str  # name without seed and sizes
    labels: int | None  # number of labelled images
    settings: str  # differences from groups of the same method, data set and labels
    status: str
    runs: tuple[Run, ...]

    @property
    def label(self) -> str:
        """The name in legends and headings."""
        extra = f", {self.settings}" if self.settings else ""
        return f"{self.method}{extra}" + ("" if self.status == "finished" else f" ({self.status})")

    def spread(self, figure: Callable[[Run], float | None]) -> Spread | None:
        """The mean and standard deviation of a figure, over the runs that have it."""
        return spread([value for run in self.runs if (value := figure(run)) is not None])

    def representative(self) -> Run:
        """The run with the median error, or the lower median of an even number of runs."""
        known = [run for run in self.runs if median_error(run) is not None]
        if not known:
            return self.runs[0]
        return sorted(known, key=lambda run: (median_error(run), run.name))[(len(known) - 1) // 2]


def spread(values: Sequence[float]) -> Spread | None:
    """The mean and sample standard deviation; None if there are no values."""
    if not values:
        return None
    std = statistics.stdev(values) if len(values) > 1 else None
    return Spread(statistics.mean(values), std, len(values))


def group(runs: Sequence[Run]) -> list[Group]:
    """Sorts runs into groups; runs without a config are in none."""
    groups: dict[tuple[Any, ...], list[Run]] = {}
    for run in runs:
        if run.config:
            groups.setdefault((*_about(run), run.status, tuple(_knobs(run).items())), []).append(
                run
            )
    keys = sorted(groups, key=lambda k: (k[1], k[2] or 0, k[0], _STATUSES.index(k[3]), str(k[4])))
    return [
        Group(method, data_set, labels, _settings(key, keys), status, tuple(groups[key]))
        for key in keys
        for method, data_set, labels, status, _ in [key]
    ]


def _about(run: Run) -> tuple[str, str, int | None]:
    """The method, the data set and the number of labelled images."""
    name = str(run.config["dataset"])
    try:
        size = splits.parse(name).size
    except ValueError:
        size = None
    data_set, labels = splits.without_numbers(name), run.sizes.get("labeled", size)
    return str(run.config["method"]), data_set, labels


def _knobs(run: Run) -> dict[str, str]:
    """The config fields that define an experiment, as text; data set names have no seed."""
    knobs = {key: str(value) for key, value in sorted(flatten(run.config).items())}
    knobs["dataset"] = splits.without_seed(knobs["dataset"])
    return {key: value for key, value in knobs.items() if key not in _SAME}


def _settings(key: tuple[Any, ...], keys: Sequence[tuple[Any, ...]]) -> str:
    """The config fields that differ between groups with the same method, data set and labels."""
    others = [dict(k[4]) for k in keys if k[:3] == key[:3]]
    knobs = dict(key[4])
    names = sorted({name for other in others for name in other})
    differing = [name for name in names if len({other.get(name) for other in others}) > 1]
    short = [name.rpartition(".")[2] for name in differing]
    return ", ".join(
        f"{s if short.count(s) == 1 else name}={knobs.get(name, '(not recorded)')}"
        for name, s in zip(differing, short, strict=True)
    )


def differing_knobs(runs: Sequence[Run]) -> dict[str, list[str]]:
    """The config fields that differ between runs: name -> the value of each run."""
    flat = [{k: str(v) for k, v in flatten(run.config).items()} for run in runs]
    names = sorted({name for knobs in flat for name in knobs})
    table = {name: [knobs.get(name, "—") for knobs in flat] for name in names}
    return {name: values for name, values in table.items() if len(set(values)) > 1}


def evaluations(run: Run, part: str = "") -> list[dict[str, Any]]:
    """The rows of a run that have the headline's accuracy."""
    key = results.HEADLINES[part or headline_part(run)]
    return [row for row in run.rows if row.get(key) is not None]


def headline_part(run: Run) -> str:
    """`test`, or `validation` for a data set without test images."""
    return results.evaluated_part(run.rows)


def median_error(run: Run) -> float | None:
    """The headline as an error in %: median of the last 20 evaluations, EMA weights."""
    accuracy = _headline(run, "accuracy")
    return None if accuracy is None else _percent(accuracy)


def balanced_accuracy(run: Run) -> float | None:
    """The balanced accuracy in %, of the headline's evaluations; None in runs of old versions."""
    return _share(_headline(run, "balanced_accuracy"))


def macro_f1(run: Run) -> float | None:
    """The macro F1 in %, like `balanced_accuracy`."""
    return _share(_headline(run, "macro_f1"))


def is_uneven(run: Run) -> bool:
    """Whether the class frequencies of the headline's images differ."""
    return run.predictions is not None and are_uneven(np.bincount(run.predictions.labels))


def _headline(run: Run, name: str) -> float | None:
    return results.results(run.rows)["headline"].get(f"{headline_part(run)}_{name}")


def raw(key: str) -> str:
    """The name of a figure of the raw weights, given that of the EMA weights."""
    return f"{key.removesuffix('_ema')}_raw"


def raw_error(run: Run) -> float | None:
    """Like `median_error`, for the raw weights at the same evaluations."""
    key = raw(results.HEADLINES[headline_part(run)])
    values = [row.get(key) for row in evaluations(run)[-results.COUNTED :]]
    known = [value for value in values if value is not None]
    return _percent(statistics.median(known)) if known and len(known) == len(values) else None


def last_error(run: Run) -> float | None:
    """The error of the last evaluation, in %."""
    errors = _errors(run)
    return errors[-1] if errors else None


def best_on_validation(run: Run) -> float | None:
    """The test error in % at the first evaluation with the best validation accuracy.

    It is None unless the validation set has at least one image per class. Published names that end
    with -1 have a single validation image.
    """
    rows = evaluations(run)
    key = results.HEADLINES["validation"]
    real = run.sizes.get("valid", 0) >= max(2, len(run.class_names))
    if headline_part(run) != "test" or not real or not rows:
        return None
    if any(row.get(key) is None for row in rows):
        return None
    return _errors(run)[int(np.argmax([row[key] for row in rows]))]


def oracle_error(run: Run) -> float | None:
    """The least test error of any evaluation, in %; not a valid result, as it uses test labels."""
    return min(_errors(run), default=None) if headline_part(run) == "test" else None


def _errors(run: Run) -> list[float]:
    key = results.HEADLINES[headline_part(run)]
    return [_percent(row[key]) for row in evaluations(run)]


def _percent(accuracy: float) -> float:
    return 100 * (1 - accuracy)


def _share(figure: float | None) -> float | None:
    return None if figure is None else 100 * figure
