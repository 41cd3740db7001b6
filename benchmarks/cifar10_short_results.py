"""The results of `cifar10_short.py`: files for docs/results/, two pictures and two tables.

A file `<method>_<set>.jsonl` has the rows of a complete run's `metrics.jsonl`, each with two
totals: `images`, the labelled images and views so far, and `seconds` of training so far, without
the start, compilation and evaluations.
"""

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.pictures import COLORS, error_axis, line_and_band, save
from ssljax.drawing import Figure
from ssljax.report import groups, runs
from ssljax.run import metrics
from ssljax.storage.files import write_text

METHODS = ("fixmatch", "mixmatch", "supervised")
PEER = "torch"
TITLES = {
    "fixmatch": "FixMatch",
    "mixmatch": "MixMatch",
    "supervised": "the labels alone",
    PEER: "FixMatch, PyTorch peer",
}
SEEDS = "results/cifar10_short_seeds.jsonl"  # in docs/
_EMA, _RAW = "test/accuracy_ema", "test/accuracy_raw"
_TICKS = (40, 50, 60, 70, 80)  # %, of the axis of errors

Rows = Sequence[Mapping[str, Any]]
Results = Mapping[str, Mapping[int, Rows]]  # method -> labelled set -> rows


def report(workdir: Path, docs: Path) -> str:
    """Collects complete runs, if there are some, draws, and returns the tables in Markdown.

    Args:
      workdir: the directory of all runs.
      docs: the folder of the pictures, which has the files in `results/cifar10_short/`.
    """
    folder = docs / "results" / "cifar10_short"
    for path, rows in collected(workdir).items():
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / path, "".join(json.dumps(row) + "\n" for row in thinned(rows)))
    results = read(folder)
    ours = {method: results[method] for method in METHODS if method in results}
    if ours:
        save(partial(draw_errors, ours), docs / "cifar10_test_error.svg")
    pairs = peer_sets(results)
    if pairs:
        seeds = read_seeds(docs)
        save(partial(draw_peer, results, seeds, pairs[0]), docs / "cifar10_peer.svg")
    return table(results) + ("\n" + peer_table(results) if pairs else "")


def collected(workdir: Path) -> dict[str, list[dict[str, Any]]]:
    """The rows of complete runs, with totals, by the names of their files."""
    found = {}
    for path in sorted(workdir.glob("*/*/metrics.jsonl")):
        run, name = path.parent, f"{path.parts[-3]}_{path.parts[-2]}.jsonl"
        if not run.with_suffix(".json").exists():
            continue  # not complete, see `jobs.note_done`
        if path.parts[-3] == PEER:
            found[name] = metrics.read_rows(path)
        elif path.parts[-3] in METHODS:
            ours = runs.read(run, name)
            found[name] = with_totals(ours.rows, ours.starts[-1]["images_per_step"])
    return found


def with_totals(rows: Rows, images_per_step: int) -> list[dict[str, Any]]:
    """Rows of ours with `images` and `seconds`. Steps whose speed was not measured, such as the
    first one, count as those after them."""
    totals: list[dict[str, Any]] = []
    seconds, step, unmeasured = 0.0, 0, 0
    for row in rows:
        steps, rate = row["step"] - step, row.get("images_per_second")
        unmeasured += steps
        if rate:
            seconds += unmeasured * images_per_step / rate
            unmeasured = 0
        step = row["step"]
        total = {"images": step * images_per_step, "seconds": round(seconds, 3)}
        totals.append({**row, **total})
    return totals


def thinned(rows: Rows, most: int = 100) -> list[Mapping[str, Any]]:
    """Every evaluation, and at most so many of the other rows, evenly spaced."""
    others = [i for i, row in enumerate(rows) if row.get(_EMA) is None]
    places = np.linspace(0, len(others) - 1, min(most, len(others))).round().astype(int)
    kept = {others[place] for place in places}
    return [row for i, row in enumerate(rows) if i in kept or row.get(_EMA) is not None]


def read(folder: Path) -> dict[str, dict[int, Rows]]:
    """The files of a folder, by method and labelled set."""
    results: dict[str, dict[int, Rows]] = {}
    for path in sorted(folder.glob("*.jsonl")):
        method, _, number = path.stem.rpartition("_")
        results.setdefault(method, {})[int(number)] = metrics.read_rows(path)
    return results


def read_seeds(docs: Path) -> Rows:
    """The rows of `cifar10_short_seeds.py`; none if it has not made its file."""
    path = docs / SEEDS
    return [json.loads(row) for row in path.read_text().splitlines()] if path.exists() else []


def evaluations(rows: Rows) -> list[Mapping[str, Any]]:
    """The rows that have a test accuracy."""
    return [row for row in rows if row.get(_EMA) is not None]


def peer_sets(results: Results) -> list[int]:
    """The labelled sets of which there is a run of ours and of the peer's."""
    return sorted(results.get("fixmatch", {}).keys() & results.get(PEER, {}).keys())


def draw_errors(results: Results) -> Figure:
    """Test error over the images seen: a line per method, the mean over the labelled sets, and a
    band of one standard deviation."""
    figure = Figure(figsize=(5.4, 3.5))
    axes = figure.subplots()
    error_axis(axes, _TICKS)
    for color, (method, sets) in zip(COLORS, results.items(), strict=False):
        of_sets = [evaluations(rows) for rows in sets.values()]
        errors = np.array([[100 * (1 - row[_EMA]) for row in rows] for rows in of_sets])
        std = errors.std(axis=0, ddof=1) if len(errors) > 1 else 0 * errors[0]
        images = np.array([row["images"] for row in of_sets[0]])
        per_step = images[0] // of_sets[0][0]["step"]
        label = f"{TITLES[method]}, {per_step} images per step"
        line_and_band(axes, images / 1000, errors.mean(axis=0), std, color, label)
    axes.set_xlim(left=0)
    axes.set_xlabel("images seen, thousands")
    figure.legend(loc="outside lower center", ncols=1, fontsize=8)
    return figure


def draw_peer(results: Results, seeds: Rows, number: int) -> Figure:
    """Test accuracy of FixMatch here and in the peer on a labelled set: on the left of all seeds
    over the images seen, a line for the mean and a band of one standard deviation; on the right of
    one run over the time of training.

    Args:
      seeds: the rows of `read_seeds`; of a method without rows, the left panel has the one run.
    """
    figure = Figure(figsize=(7.2, 3.4))
    left, right = figure.subplots(1, 2, sharey=True)
    left.set_ylim(20, 55)  # the band is cut there
    for color, method, name in (
        (COLORS[0], "fixmatch", "ssljax"),
        (COLORS[1], PEER, "PyTorch peer"),
    ):
        rows = evaluations(results[method][number])
        of_seeds = [row for row in seeds if (row["method"], row["set"]) == (method, number)]
        found = by_step(of_seeds or rows)
        count = max(map(len, found.values()))
        steps = [step for step, of_step in found.items() if len(of_step) == count]
        each = np.array([found[step] for step in steps])  # [steps, seeds]
        std = each.std(axis=1, ddof=1) if count > 1 else np.zeros(len(steps))
        images = np.array(steps) * (rows[0]["images"] // rows[0]["step"]) / 1000
        label = f"{name}, on the left {count} seeds"
        line_and_band(left, images, each.mean(axis=1), std, color, label)
        minutes = [row["seconds"] / 60 for row in rows]
        right.plot(minutes, [100 * row[_EMA] for row in rows], color=color)
    left.set_ylabel("test accuracy (%)")
    left.set_xlabel("images seen, thousands")
    right.set_xlabel("minutes of training, one run on one core")
    for axes in (left, right):
        axes.set_xlim(left=0)
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


def by_step(rows: Rows) -> dict[int, list[float]]:
    """The test accuracies of the EMA weights, in %, of the runs that have come to each step."""
    found: dict[int, list[float]] = {}
    for row in rows:
        found.setdefault(row["step"], []).append(100 * row[_EMA])
    return found


def table(results: Results) -> str:
    """A row per method: the last evaluation's test accuracy, images seen, and time of training."""
    head = (
        "| method | labelled sets | test accuracy %, EMA weights | raw weights | images seen "
        "| minutes per run |"
    )
    lines = [head, f"|{' --- |' * 6}"]
    for method in (*METHODS, PEER):
        if method not in results:
            continue
        last = [rows[-1] for rows in map(evaluations, results[method].values())]
        cells = [
            TITLES[method],
            ", ".join(map(str, results[method])),
            *(mean_and_std([100 * row[key] for row in last]) for key in (_EMA, _RAW)),
            f"{last[0]['images']:,}",
            f"{np.mean([row['seconds'] for row in last]) / 60:.1f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def peer_table(results: Results) -> str:
    """A row per labelled set that has both: accuracies in % at the last step, minutes, and the
    minutes after which ours has the peer's last accuracy (`reached`)."""
    lines = [
        "| labelled set | accuracy %, ssljax | PyTorch peer | minutes, ssljax | PyTorch peer "
        "| until ssljax has the peer's accuracy |",
        f"|{' --- |' * 6}",
    ]
    for number in peer_sets(results):
        ours, theirs = (evaluations(results[name][number]) for name in ("fixmatch", PEER))
        pair = ours[-1], theirs[-1]
        seconds = [*(row["seconds"] for row in pair), reached(ours, theirs[-1][_EMA])]
        accuracies = [f"{100 * row[_EMA]:.2f}" for row in pair]
        minutes = ["never" if x is None else f"{x / 60:.1f}" for x in seconds]
        lines.append(f"| {' | '.join([str(number), *accuracies, *minutes])} |")
    return "\n".join([*lines, ""])


def reached(rows: Rows, accuracy: float) -> float | None:
    """The seconds of training at the first evaluation of at least this accuracy (0 to 1); None if
    there is none."""
    return next((row["seconds"] for row in rows if row[_EMA] >= accuracy), None)


def mean_and_std(values: Sequence[float]) -> str:
    """`50.12 ± 1.30`, with the standard deviation of a sample; of one value, that value."""
    spread = groups.spread(values)
    assert spread is not None
    return f"{spread.mean:.2f}" + (f" ± {spread.std:.2f}" if spread.std is not None else "")
