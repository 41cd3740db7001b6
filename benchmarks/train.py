"""How fast a recipe trains, and what bounds it: `python -m benchmarks.train --config=configs/….py`.

Prints images per second (every image of every pass through the network counts), the time of a step
and of its compilation, peak memory, the arithmetic of a step (counted in the program before XLA
optimises it) and its share of the matrix multiplications that the same devices reach. `--breakdown`
says where the time goes, by leaving parts of the step out; `--trace=DIR` writes a profile for
TensorBoard or Perfetto. `--images=N` trains on random images in place of the data set. Overrides
are those of `launch.py`; with several hosts' devices, or a stream, use its progress line instead.
"""

import dataclasses
import json
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
from absl import app, flags
from ml_collections import config_flags

from ssljax import recipe
from ssljax.augment import policies
from ssljax.augment.augmentation import Augmentation
from ssljax.experiment import Experiment
from ssljax.training import huge_pages, parallel
from ssljax.training.stream import Feed

_CONFIG = config_flags.DEFINE_config_file("config", help_string="A file of configs/.")
_STEPS = flags.DEFINE_integer("steps", 10, "Timed steps.", lower_bound=1)
_IMAGES = flags.DEFINE_integer("images", 0, "Random images to train on; 0: the data set.")
_SIZE = flags.DEFINE_integer("size", 32, "Their side in pixels.")
_BREAKDOWN = flags.DEFINE_bool("breakdown", False, "Also say where the time goes.")
_TRACE = flags.DEFINE_string("trace", None, "A directory for a profile of the timed steps.")
_JSON = flags.DEFINE_bool("json", False, "Print one line of JSON.")


def main(argv: list[str]) -> None:
    """Measures and prints."""
    del argv
    with tempfile.TemporaryDirectory() as directory:
        config = _CONFIG.value
        if _IMAGES.value:
            config.dataset = _random_images(Path(directory), _IMAGES.value, _SIZE.value)
        experiment = recipe.build(config)
    result = measure(experiment, _STEPS.value, trace=_TRACE.value)
    if _BREAKDOWN.value:
        result["breakdown_s"] = breakdown(experiment, _STEPS.value, result["fastest_step_s"])
    print(json.dumps(result) if _JSON.value else describe(result))


def _random_images(directory: Path, count: int, size: int) -> str:
    """The name of a data set of ten classes, of which 250 images are labelled."""
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
    """Times `steps` steps, after those that compile; everything is in SI units."""
    with experiment.feed(0) as feed:
        compile_s, times = _timed(experiment, feed, steps, trace)
    images, flops = _arithmetic(experiment)
    step_s = statistics.median(times)
    peak = _matrix_peak(experiment)
    return {
        "hardware": hardware(experiment.devices),
        "devices": len(experiment.devices),
        "images_per_step": images,
        "images_per_second": images / step_s,
        "step_s": step_s,
        "fastest_step_s": min(times),
        "compile_s": compile_s,
        "peak_memory_bytes": _peak_memory(experiment.devices),
        "flop_per_step": flops,
        "matrix_peak_flop_per_s": peak,
        "share_of_peak": flops / step_s / peak,
    }


def _timed(
    experiment: Experiment, feed: Feed, steps: int, trace: str | None = None
) -> tuple[float, list[float]]:
    """Seconds until the first step is done, and of each step after."""
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
    """Of one step, the whole batch on one device: the images that enter the network, those of
    passes without gradient too, and multiplications and additions.

    Of the program for a TPU: that for a CPU has loops, which XLA counts once.
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
    with nn.intercept_methods(count):
        lowered = step.trace(*arguments).lower(lowering_platforms=("tpu",))
    return images, lowered.cost_analysis()["flops"]


def _matrix_peak(experiment: Experiment) -> float:
    """Arithmetic per second of large matrix products, on all devices at once."""
    size = 1024 if experiment.devices[0].platform == "cpu" else 8192
    dtype = jnp.bfloat16 if experiment.config["bfloat16"] else jnp.float32
    multiply = jax.pmap(lambda a: a @ a, devices=experiment.devices)
    matrices = parallel.replicate(np.ones((size, size), dtype), experiment.devices)
    times = []
    for _ in range(6):
        start = time.perf_counter()
        jax.block_until_ready(multiply(matrices))
        times.append(time.perf_counter() - start)
    return len(experiment.devices) * 2 * size**3 / min(times)


def _peak_memory(devices: list[jax.Device]) -> int:
    """Of the device that used most; on a CPU of the process."""
    stats = [device.memory_stats() or {} for device in devices]
    known = [s["peak_bytes_in_use"] for s in stats if "peak_bytes_in_use" in s]
    unit = 1 if sys.platform == "darwin" else 1024
    return max(known, default=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)


def breakdown(experiment: Experiment, steps: int, whole: float) -> dict[str, float]:
    """Seconds per step of each of its parts: what is saved where they are left out.

    Of the fastest steps, since differences of others are mostly noise.

    A method that guesses in the pass that it trains on, such as FixMatch, has no forward pass
    beside its guess.
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
    """What the figures were measured on."""
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
    """The same for people."""
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
    app.run(main)
