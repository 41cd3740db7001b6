"""Measures seconds per step of several seeds in one program, compared with separate runs.

    python -m benchmarks.seeds [--config configs/fixmatch_digits.py] [--seeds 1 3 5] [--steps 100]

Prints a table and one line of JSON. `cost` is the time of all seeds in one program, in units of a
run of one seed: a cost equal to the number of seeds saves nothing, 1 would be free. The data are
those of the digits unless the config sets others; the first steps, which compile, are excluded.
"""

import argparse
import json
import runpy
import time
from typing import Any

import jax
import numpy as np

from ssljax import recipe
from ssljax.run import seeds
from ssljax.training import parallel


def seconds_per_step(config: Any, num_seeds: int, *, steps: int, turns: int) -> float:
    """Returns the fastest of some turns; other processes can only slow a turn down."""
    config = config.copy_and_resolve_references()
    config.num_seeds = max(num_seeds, 2)
    experiments = recipe.build_seeds(config)[:num_seeds]
    first, devices = experiments[0], experiments[0].devices
    empty = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), first.shapes["window"])
    trees: Any = [{"state": x.init_state(), "window": empty} for x in experiments]
    if num_seeds == 1:  # as in ordinary runs, without the mapping
        tree, data, run = trees[0], first.data(), first.compile_steps()
    else:
        tree, data, run = (
            seeds.stacked(trees),
            seeds.stacked_data(experiments),
            seeds.compile_steps(first),
        )
    state, metric_sums = (parallel.replicate(tree[name], devices) for name in ("state", "window"))
    feed = parallel.replicate(data, devices)
    state, metric_sums = jax.block_until_ready(run(state, metric_sums, feed, 3))
    best = np.inf
    for _ in range(turns):
        start = time.perf_counter()
        state, metric_sums = jax.block_until_ready(run(state, metric_sums, feed, steps))
        best = min(best, (time.perf_counter() - start) / steps)
    return best


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--config", default="configs/fixmatch_digits.py")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 3, 5])
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--turns", type=int, default=5)
    args = parser.parse_args()
    config = runpy.run_path(args.config)["get_config"]()
    counts = sorted({1, *args.seeds})
    device = jax.devices()[0].device_kind
    print(f"{args.config} on {device}\nseeds  ms per step  cost in runs of one seed")
    times: dict[int, float] = {}
    for n in counts:
        times[n] = seconds_per_step(config, n, steps=args.steps, turns=args.turns)
        print(f"{n:5}  {1000 * times[n]:9.2f}  {times[n] / times[1]:.2f}", flush=True)
    print(json.dumps({"device": device, "seconds": times, "steps": args.steps}))


if __name__ == "__main__":
    main()
