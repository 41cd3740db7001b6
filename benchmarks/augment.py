"""Measures images per second of weak and strong views, compiled and with Pillow.

    python -m benchmarks.augment [--sizes 32 224] [--seconds 3]

Prints a table and one line of JSON. Pillow's views start and end with uint8 arrays, one image at a
time, in one process and in one process per core. Both sides draw from the same distribution.
"""

import argparse
import functools
import json
import multiprocessing
import os
import platform
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from benchmarks import pillow_policies
from ssljax.augment import policies
from ssljax.augment import randaugment as ra

BATCH = {32: 1024, 224: 64}
FOUR = ("identity", "rotate", "equalize", "sharpness")  # one per kernel


def strong(keys: jax.Array, images: jax.Array, *, space: ra.SearchSpace) -> jax.Array:
    """Applies the weak view, then RandAugment."""
    images = policies.weak_cifar(keys, images)
    return ra.randaugment(jax.vmap(jax.random.fold_in, (0, None))(keys, 1), images, space=space)


def compiled_rate(view: Callable[..., jax.Array], images: np.ndarray, seconds: float) -> float:
    """Returns images per second of the fastest run; other processes can only slow a run down."""
    keys = jax.random.split(jax.random.key(0), len(images))
    keys, images = jax.device_put((keys, images))
    run = jax.jit(view)
    run(keys, images).block_until_ready()
    best, end = np.inf, time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        run(keys, images).block_until_ready()
        best = min(best, time.perf_counter() - start)
    return len(images) / best


def pillow_view(image: np.ndarray, rng: np.random.Generator, names: list[str] | None) -> np.ndarray:
    """Returns a weak view of the CIFAR recipe, or with `names` a strong one."""
    offset = tuple(rng.integers(0, 9, 2))
    image = pillow_policies.weak(image, flip=rng.random() < 0.5, offset=offset, pad=4)
    if names is None:
        return image
    ops = [
        (names[rng.integers(len(names))], int(rng.integers(1, 10)), rng.random() < 0.5)
        for _ in range(2)
        if rng.random() < 0.5
    ]
    centre = rng.integers(0, image.shape[0], 2).tolist()
    return pillow_policies.randaugment_cifar(np.ascontiguousarray(image), ops, centre)


def pillow_rate(images: np.ndarray, seconds: float, names: list[str] | None, seed: int) -> float:
    """Returns images per second of one process in its fastest tenth, for the reason above."""
    rng = np.random.default_rng(seed)
    best = 0.0
    for _ in range(10):
        count, start = 0, time.perf_counter()
        while time.perf_counter() - start < seconds / 10:
            for image in images[:16]:
                pillow_view(image, rng, names)
            count += 16
        best = max(best, count / (time.perf_counter() - start))
    return best


def measure(size: int, seconds: float, pool: Any, cores: int) -> Iterator[tuple[str, str, float]]:
    """Yields (view, implementation, images per second) for one image size."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (BATCH.get(size, 64), size, size, 3), dtype=np.uint8)
    cifar = ra.CIFAR
    names = [op.name for op in cifar.ops]
    imagenet, sixteen = ra.IMAGENET, len(ra.IMAGENET.ops)
    four = imagenet._replace(ops=tuple(op for op in imagenet.ops if op.name in FOUR))
    function: Callable[..., jax.Array]
    for view, function, picks in (
        ("weak", policies.weak_cifar, None),
        ("strong", functools.partial(strong, space=cifar), names),
    ):
        yield view, "compiled", compiled_rate(function, images, seconds)
        work = [(images[:64], seconds, picks, seed) for seed in range(cores)]
        yield view, "Pillow, 1 process", pool.starmap(pillow_rate, work[:1])[0]
        yield view, f"Pillow, {cores} processes", sum(pool.starmap(pillow_rate, work, 1))
    for space, label in ((four, "4 ops"), (imagenet, f"{sixteen} ops")):
        function = functools.partial(strong, space=space)
        yield label, "compiled", compiled_rate(function, images, seconds)


def hardware() -> dict[str, Any]:
    """Describes the hardware that the numbers hold for."""
    model = platform.processor() or platform.machine()
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo") as file:
            found = [
                line.split(":", 1)[1].strip() for line in file if line.startswith("model name")
            ]
        model = found[0] if found else model
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "device": jax.devices()[0].device_kind,
        "load": os.getloadavg()[0],
        "jax": jax.__version__,
    }


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[32, 224], help="pixels a side")
    parser.add_argument("--seconds", type=float, default=3.0, help="for each number")
    args = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    facts = hardware()
    print(f"{facts['cpu']}, {cores} cores, JAX on {facts['device']}, load {facts['load']:.1f}")
    print(f"{'size':>5} {'view':8} {'how':22} {'images/s':>10}")
    rows = []
    # Spawned: a fork would copy JAX's threads with their locks held.
    with multiprocessing.get_context("spawn").Pool(cores) as pool:
        for size in args.sizes:
            for view, how, rate in measure(size, args.seconds, pool, cores):
                print(f"{size:5} {view:8} {how:22} {rate:10.0f}", flush=True)
                rows.append({"size": size, "view": view, "how": how, "images_per_second": rate})
    print(json.dumps({"hardware": facts, "results": rows}))


if __name__ == "__main__":
    main()
