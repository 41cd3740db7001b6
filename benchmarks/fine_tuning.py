"""Measures the cost of each `config.trainable`: weights, state, checkpoints, memory of a step.

    python -m benchmarks.fine_tuning [--model vit_small] [--batch_size 16] [--uratio 3] [--side 224]

Prints a Markdown table for FixMatch with AdamW. Steps are traced, and nothing is compiled or
trained: the state and the checkpoint are exact, the step's memory is the estimate of
`training/step_memory.py`. Digits stand for photos, enlarged to `--side` pixels in the network.
"""

import argparse

import jax

from ssljax import overrides, recipe
from ssljax.experiment import Experiment

KINDS = ("all", "last:2", "lora:8", "head")
HEADING = ("`trainable`", "trained weights", "state, MB", "a step's memory, GB")


def experiment(trainable: str, model: str, batch_size: int, uratio: int, side: int) -> Experiment:
    """FixMatch with AdamW of a network that is trained so far."""
    given = {
        "model": model,
        "model_args.resize": side,
        "trainable": trainable,
        "batch_size": batch_size,
        "uratio": uratio,
        "optimizer.name": "adamw",
    }
    config = overrides.load("fixmatch_digits", [f"{knob}={value}" for knob, value in given.items()])
    return recipe.build(config, max_devices=1, once=False)


def row(found: Experiment) -> tuple[str, str, str, str]:
    """The cells of an experiment, see `HEADING`."""
    trained = sum(x.size for x in jax.tree.leaves(found.shapes["state"].params))
    kind = f"`{found.config['trainable']}`"
    return kind, f"{trained:,}", f"{found.state_bytes / 1e6:.0f}", f"{found.step_bytes / 1e9:.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="vit_small")
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--uratio", type=int, default=3)
    parser.add_argument("--side", type=int, default=224)
    args = parser.parse_args()
    rows = [row(experiment(kind, **vars(args))) for kind in KINDS]
    for cells in (HEADING, ["---"] * len(HEADING), *rows):
        print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
