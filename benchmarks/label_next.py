"""Compares the test accuracy after labelling digits by each strategy of `--mode=label_next`.

    python -m benchmarks.label_next [--seeds 1 2 3 4 5] [--steps 1000] [--budget 20]

The first 20 labels are those of typical images, chosen by their pixels alone, or of random images.
FixMatch trains on them, 20 more are chosen by a strategy, and it trains again. Prints a table and
one line of JSON: mean and standard deviation over the seeds of the test accuracy in per cent; both
selections and both trainings depend on the seed.
"""

import argparse
import json
import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import ssljax
from ssljax import overrides
from ssljax.data import datasets, split_file
from ssljax.data.datasets import Dataset
from ssljax.data.splits import Split
from ssljax.inference import label_next
from ssljax.storage.files import write_json
from ssljax.trained import Trained

# Strategies for the first labels, and for the next ones.
CHOICES = (
    ("random", "random"),
    ("typical", "typical"),
    ("typical", "margin"),
    ("typical", "entropy"),
    ("typical", "coreset"),
    ("random", "margin"),
)


def chosen(
    model: Trained | None, data: Dataset, split: Split, *, budget: int, strategy: str, seed: int
) -> Split:
    """Returns the split with labels for images that a strategy chooses, or that are random."""
    if strategy == "random":
        pool = np.setdiff1d(split.unlabeled, split.labeled)
        new = np.random.default_rng(seed).choice(pool, budget, replace=False)
    else:
        members = [] if model is None else [model]
        choices = label_next.choose(
            members, data, split, budget=budget, strategy=strategy, seed=seed
        )
        new = np.array([choice.number for choice in choices])
    return split._replace(labeled=np.union1d(split.labeled, new))


def train(split: Split, workdir: Path, *, steps: int, seed: int) -> tuple[Trained, float]:
    """Trains FixMatch on a split of the digits; returns the model and its test accuracy in %."""
    workdir.mkdir(parents=True)
    write_json(workdir / "labels.json", split_file.record(split, names=datasets.digits().names()))
    given = [f"split_file={workdir}/labels.json", f"num_steps={steps}", f"eval_every={steps}"]
    config = overrides.load("fixmatch_digits", [*given, f"seed={seed}", "log_every=1000"])
    model = ssljax.train(config, workdir / "run")
    return model, 100 * model.results["last"]["test/accuracy_ema"]


def of_seed(seed: int, home: Path, *, steps: int, budget: int) -> dict[str, float]:
    """Returns the accuracy of each strategy, and with the first labels only."""
    data = datasets.digits()
    none = Split(np.arange(0), np.arange(len(data.labels)), np.arange(0))
    found: dict[str, float] = {}
    for first in sorted({first for first, _ in CHOICES}):
        start = chosen(None, data, none, budget=budget, strategy=first, seed=seed)
        model, accuracy = train(start, home / first, steps=steps, seed=seed)
        found[f"{budget} {first}"] = accuracy
        for _, strategy in (choice for choice in CHOICES if choice[0] == first):
            more = chosen(model, data, start, budget=budget, strategy=strategy, seed=seed + 1000)
            name = f"{budget} {first} + {budget} {strategy}"
            _, found[name] = train(more, home / name.replace(" ", "_"), steps=steps, seed=seed)
    return found


def table(found: Sequence[dict[str, float]]) -> str:
    """Returns a Markdown table, the best row first."""
    values = {name: [row[name] for row in found] for name in found[0]}
    lines = ["| labels | test accuracy, % |", "| --- | --- |"]
    for name, of_name in sorted(values.items(), key=lambda item: -np.mean(item[1])):
        spread = np.std(of_name, ddof=1) if len(of_name) > 1 else 0.0
        lines.append(f"| {name} | {np.mean(of_name):.2f} ± {spread:.2f} |")
    return "\n".join(lines)


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--budget", type=int, default=20)
    args = parser.parse_args()
    logging.getLogger("ssljax").setLevel(logging.ERROR)
    found = []
    with tempfile.TemporaryDirectory() as home:
        for seed in args.seeds:
            row = of_seed(seed, Path(home, str(seed)), steps=args.steps, budget=args.budget)
            found.append(row)
            print(f"seed {seed}: {row}", flush=True)
    print(table(found))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
