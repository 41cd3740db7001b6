"""Checks whether an accelerator computes the same as the CPU, and resumes exactly.

    python -m benchmarks.gpu_checks views
    python -m benchmarks.gpu_checks step --config=… [--config.<knob>=<value> …]
    python -m benchmarks.gpu_checks runs <run directory> <run directory>

`views` counts the pixels of augmented images that differ from the CPU's. `step` compares the
metrics of one training step and its weight update with the CPU's, with products in the default
precision (TF32 on NVIDIA GPUs) and in the highest. `runs` compares the newest checkpoints of two
runs bit by bit. Each prints one line of JSON.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks.train import random_images
from ssljax import overrides, recipe
from ssljax.augment import augmentation, policies
from ssljax.storage.checkpoints import Checkpoints


def main() -> None:
    """Compares and prints."""
    checks = {"views": views, "step": step, "runs": runs}
    print(json.dumps(checks[sys.argv[1]](sys.argv[2:])))


def _devices() -> tuple[jax.Device, jax.Device]:
    return jax.devices()[0], jax.devices("cpu")[0]


def views(arguments: list[str]) -> dict[str, Any]:
    """Returns the fraction of differing pixels, and by how many levels, per view (4,096 images)."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=4096)
    count = parser.parse_args(arguments).count
    random = np.random.default_rng(0)
    # Half of them are noise, half are squares of one colour, which have few grey levels.
    images = random.integers(0, 256, (count, 32, 32, 3), np.uint8)
    images[::2] = images[::2, ::8, ::8].repeat(8, axis=1).repeat(8, axis=2)
    found: dict[str, Any] = {"device": _devices()[0].device_kind, "images": count}
    for name in ("randaugment", "ctaugment"):
        spaces = {"randaugment": "cifar", "ctaugment": "remixmatch"}
        augment = getattr(augmentation, name)(policies.weak_cifar, spaces[name])
        for view in ("weak", "strong"):

            def compute(images, augment=augment, view=view):
                keys = jax.random.split(jax.random.PRNGKey(0), len(images))
                return augment.views(augment.init())[view](keys, images)

            ours, theirs = (
                np.asarray(jax.jit(compute)(jax.device_put(images, device))).astype(int)
                for device in _devices()
            )
            far = np.abs(ours - theirs)
            found[f"{name}, {view}"] = {"share": float((far > 0).mean()), "most": int(far.max())}
    return found


def step(arguments: list[str]) -> dict[str, Any]:
    """Returns the metrics of one step, and the distance of its weight update from the CPU's."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--config", required=True)
    args, rest = parser.parse_known_args(arguments)
    config = overrides.load(args.config, [x.removeprefix("--config.") for x in rest])
    with tempfile.TemporaryDirectory() as directory:
        config.dataset = random_images(Path(directory), 1000, 32)
        experiment = recipe.build(config, max_devices=1)
    before, data = experiment.init_state(), experiment.data()

    def compute(device: jax.Device, precision: str) -> tuple[Any, dict[str, float]]:
        with jax.default_matmul_precision(precision):
            run = jax.jit(experiment.single_step())
            after, metrics = jax.device_get(run(*jax.device_put((before, data), device)))
        change = jax.tree.map(np.subtract, after.params, before.params)
        return change, {
            k: float(x) for k, x in metrics.items() if np.isfinite(x).all() and np.ndim(x) == 0
        }

    device, cpu = _devices()
    expected, metrics = compute(cpu, "highest")
    found: dict[str, Any] = {"device": device.device_kind, "cpu": metrics}
    for precision in ("default", "highest"):
        change, metrics = compute(device, precision)
        apart = _norm(jax.tree.map(np.subtract, change, expected)) / _norm(expected)
        found[precision] = metrics | {"change of weights": apart}
    return found


def _norm(tree: Any) -> float:
    return float(
        np.sqrt(sum(np.sum(np.square(x, dtype=np.float64)) for x in jax.tree.leaves(tree)))
    )


def runs(arguments: list[str]) -> dict[str, Any]:
    """Returns how many arrays of two newest checkpoints differ, and the largest difference."""
    found = []
    for workdir in arguments:
        with Checkpoints(Path(workdir), keep=0) as checkpoints:
            newest = checkpoints.restore_newest()
        assert newest is not None, f"{workdir} has no checkpoint"
        found.append(newest)
    (step, first), (other_step, second) = found
    assert step == other_step, "the checkpoints are of different steps"
    pairs = list(zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True))
    different = [(a, b) for a, b in pairs if not np.array_equal(a, b)]
    relative = [
        _norm(a - b) / _norm(b) for a, b in different if np.issubdtype(a.dtype, np.floating)
    ]
    return {
        "step": step,
        "arrays": len(pairs),
        "different": len(different),
        "apart": max(relative, default=0.0),
    }


if __name__ == "__main__":
    main()
