"""Measures how fast a recipe trains: `python -m benchmarks.train --config=configs/….py`.

Prints images per second (counting every image of every pass through the network), the time of a
step and of its compilation, peak memory, the arithmetic of a step (counted in the program before
XLA optimises it) and its fraction of the matrix-product throughput of the same devices.
`--breakdown` shows where the time is spent, by omitting parts of the step; `--trace=DIR` writes a
profile for TensorBoard or Perfetto. `--images=N` trains on random images instead of the data set.
Overrides are those of `launch.py`; with the devices of several hosts, or a stream, use its progress
line instead.
"""

import argparse
import dataclasses
import json
import math
import os
import platform
import resource
import statistics
import sys
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from ssljax import overrides, recipe
from ssljax.augment import policies
from ssljax.augment.augmentation import Augmentation
from ssljax.experiment import Experiment
from ssljax.training import huge_pages, parallel
from ssljax.training.stream import Feed


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.partition(":")[0], allow_abbrev=False)
    parser.add_argument("--config", required=True, help="a recipe; overrides are --config.<knob>=…")
    parser.add_argument("--steps", type=int, default=10, help="timed steps")
    parser.add_argument("--images", type=int, default=0, help="random images; 0: the data set")
    parser.add_argument("--size", type=int, default=32, help="their side in pixels")
    parser.add_argument("--breakdown", action="store_true", help="also say where the time goes")
    parser.add_argument("--trace", help="a directory for a profile of the timed steps")
    parser.add_argument("--json", action="store_true", help="print one line of JSON")
    args, rest = parser.parse_known_args()
    config = overrides.load(args.config, [x.removeprefix("--config.") for x in rest])
    with tempfile.TemporaryDirectory() as directory:
        if args.images:
            config.dataset = random_images(Path(directory), args.images, args.size)
        recipe.prepare(config)
        experiment = recipe.build(config)
    result = measure(experiment, args.steps, trace=args.trace)
    if args.breakdown:
        result["breakdown_s"] = breakdown(experiment, args.steps, result["fastest_step_s"])
    print(json.dumps(result) if args.json else describe(result))


def random_images(directory: Path, count: int, size: int) -> str:
    """Writes a data set of ten classes with 250 labelled images, and returns its name."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (count, size, size, 3), np.uint8)
    np.savez(
        directory / "images.npz",
        train_images=images,
        train_labels=np.arange(count) % 10,
        test_images=images[:100],
        test_labels=np.arange(100) % 10,
    )
    return f"npz:{directory / 'images.npz'}.1@250-100"


def measure(experiment: Experiment, steps: int, *, trace: str | None = None) -> dict[str, Any]:
    """Times `steps` steps, after those that compile; all values are in SI units."""
    with experiment.feed(0) as feed:
        compile_s, times = _timed(experiment, feed, steps, trace)
    images, flops = _arithmetic(experiment)
    step_s = statistics.median(times)
    memory = _peak_memory(
        experiment.devices
    )  # before the matrix products, which need more memory than some steps
    peak = _matrix_peak(experiment)
    return {
        "hardware": hardware(experiment.devices),
        "devices": len(experiment.devices),
        "images_per_step": images,
        "images_per_second": images / step_s,
        "step_s": step_s,
        "fastest_step_s": min(times),
        "compile_s": compile_s,
        "peak_memory_bytes": memory,
        "flop_per_step": flops,
        "matrix_peak_flop_per_s": peak,
        "share_of_peak": flops / step_s / peak,
    }


def _timed(
    experiment: Experiment, feed: Feed, steps: int, trace: str | None = None
) -> tuple[float, list[float]]:
    """Returns the seconds until the first step is done, and of each step after it."""
    state, metric_sums = (
        parallel.replicate(x, experiment.devices)
        for x in (experiment.init_state(), _zeros(experiment.shapes["window"]))
    )
    run, times = experiment.compile_steps(), []
    start = time.perf_counter()
    state, metric_sums = run(state, metric_sums, feed, 1)
    jax.block_until_ready((state, metric_sums))
    compile_s = time.perf_counter() - start
    a_call = min(experiment.steps_per_run, steps)
    with jax.profiler.trace(trace) if trace else nullcontext():
        for _ in range(max(3, steps // a_call)):
            start = time.perf_counter()
            state, metric_sums = run(state, metric_sums, feed, a_call)
            jax.block_until_ready((state, metric_sums))
            times.append((time.perf_counter() - start) / a_call)
    return compile_s, times


def _zeros(shapes: Any) -> Any:
    return jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)


def _arithmetic(experiment: Experiment) -> tuple[int, float]:
    """Counts, for one step with the full batch on one device, the images that enter the network,
    including passes without gradient, and the multiplications and additions.

    The program for a TPU is counted: that for a CPU has loops, which XLA counts once. The CPU's
    client does the counting, because those of GPUs and TPUs count compiled programs only.
    """
    images = 0

    def count(call, args, kwargs, context):
        nonlocal images
        if not context.module.path and context.method_name == "__call__":
            images += len(args[0])
        return call(*args, **kwargs)

    one = dataclasses.replace(experiment, devices=experiment.devices[:1])
    step = jax.jit(jax.vmap(one.train_step, axis_name=parallel.AXIS))
    arguments = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct((1, *x.shape), x.dtype),
        (experiment.shapes["state"], experiment.data()),
    )
    with nn.intercept_methods(count), jax.default_device(jax.devices("cpu")[0]):
        lowered = step.trace(*arguments).lower(lowering_platforms=("tpu",))
    return images, (lowered.cost_analysis() or {}).get("flops", math.nan)


def _matrix_peak(experiment: Experiment) -> float:
    """Returns operations per second of large matrix products, on all devices at once."""
    size = 1024 if experiment.devices[0].platform == "cpu" else 8192
    dtype = jnp.bfloat16 if experiment.config["bfloat16"] else jnp.float32
    multiply = jax.pmap(jnp.matmul, devices=experiment.devices)
    # Random values: GPUs are faster with regular ones. Powers neither vanish nor overflow.
    random = np.random.default_rng(0).standard_normal((size, size), np.float32) / np.sqrt(size)
    matrices = parallel.replicate(random.astype(dtype), experiment.devices)
    times, count = [], 5
    for _ in range(4):
        start, product = time.perf_counter(), matrices
        for _ in range(count):
            product = multiply(matrices, product)
        jax.block_until_ready(product)
        times.append(time.perf_counter() - start)
    return len(experiment.devices) * count * 2 * size**3 / min(times)


def _peak_memory(devices: list[jax.Device]) -> int:
    """Returns the peak memory of the device that used most; on a CPU, of the process."""
    stats = [device.memory_stats() or {} for device in devices]
    known = [s["peak_bytes_in_use"] for s in stats if "peak_bytes_in_use" in s]
    unit = 1 if sys.platform == "darwin" else 1024
    return max(known, default=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)


def breakdown(experiment: Experiment, steps: int, whole: float) -> dict[str, float]:
    """Returns the seconds per step of each part: the time saved when it is omitted.

    Uses the fastest steps, because differences of other steps are mostly noise.

    A method whose guess is the training pass itself, such as FixMatch, has no separate forward
    pass.
    """
    optimizer = experiment.optimizer

    def keep(gradients, state, params):
        del params
        return gradients, state

    def nothing(gradients, state, params):
        del params
        return jax.tree.map(jnp.zeros_like, gradients), state

    def no_views(state):
        del state
        return {"weak": policies.none, "strong": policies.none}

    def guess(*args):
        _, aux = experiment.method.loss(*args)
        aux = aux._replace(batch_stats=jax.lax.stop_gradient(aux.batch_stats), logs={})
        return jnp.zeros(()), aux

    def step_s(**replaced: Any) -> float:
        changed = dataclasses.replace(experiment, **replaced)
        with changed.feed(0) as feed:
            return min(_timed(changed, feed, steps)[1])

    without_backward = optax.GradientTransformation(optimizer.init, nothing)
    plain = Augmentation(no_views, lambda image: {}, init=experiment.augmentation.init)
    unaugmented = step_s(augmentation=plain)
    not_updated = step_s(optimizer=optax.GradientTransformation(optimizer.init, keep))
    forward = step_s(optimizer=without_backward)
    result = {
        "augmentation": whole - unaugmented,
        "forward": forward - (whole - unaugmented),
        "backward": not_updated - forward,
        "update": whole - not_updated,
    }
    if experiment.method.views:
        only_guess = step_s(
            method=experiment.method._replace(loss=guess), optimizer=without_backward
        )
        result["guess"] = only_guess - (whole - unaugmented)
        result["forward"] -= result["guess"]
    return result


def hardware(devices: list[jax.Device]) -> str:
    """Describes the hardware of the measurements."""
    kind = devices[0].device_kind
    if devices[0].platform == "cpu":
        kind = f"{_processor()}, {len(os.sched_getaffinity(0))} cores"
    return f"{len(devices)} × {devices[0].platform} ({kind}), jax {jax.__version__}"


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def describe(result: dict[str, Any]) -> str:
    """Formats the result as text."""
    lines = [
        result["hardware"],
        f"{result['images_per_second']:.1f} images/s: {1000 * result['step_s']:.1f} ms per step of "
        f"{result['images_per_step']} images (fastest {1000 * result['fastest_step_s']:.1f} ms)",
        f"compiled in {result['compile_s']:.1f} s; peak memory "
        f"{result['peak_memory_bytes'] / 2**30:.2f} GiB",
        f"{result['flop_per_step'] / 1e9:.1f} GFLOP per step: "
        f"{result['flop_per_step'] / result['step_s'] / 1e9:.1f} GFLOP/s, "
        f"{100 * result['share_of_peak']:.0f} % of the {result['matrix_peak_flop_per_s'] / 1e9:.1f}"
        " GFLOP/s of matrix products",
    ]
    whole = result["fastest_step_s"]
    lines += [
        f"  {name}: {1000 * seconds:.1f} ms, {100 * seconds / whole:.0f} %"
        for name, seconds in result.get("breakdown_s", {}).items()
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    huge_pages.restart()
    main()
