"""Measures the speed of ImageNet's input and step: `python -m benchmarks.imagenet_input`.

It generates JPEGs of ImageNet's usual size (500×375 pixels, about 100 kB, noise and gradients), and
measures:

- images per second and core that the host decodes, crops and flips, compared with plain Pillow in
  one thread; the two alternate, and the ratio is that of their medians;
- the same input shuffled by tf.data's buffer from TFRecord order, which cannot resume at the point
  of an interruption: the difference is the cost of random access by record;
- images per second of the FixMatch step, and the fraction of time it waits for batches that are
  available at once: `--steps=0` skips it. On a GPU, use `--model=resnet50 --image_size=224
  --bfloat16` with the largest `--batch_size` that fits; this prints its peak memory.
"""

import argparse
import io
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
from PIL import Image

from configs import fixmatch_imagenet
from ssljax import recipe
from ssljax.data import crops, image_index, streaming
from ssljax.data.batches import RawBatch
from ssljax.data.splits import Split
from ssljax.data.streaming import StreamedDataset
from ssljax.training import parallel
from ssljax.training.stream import Stream


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=int, default=512, help="decoded in each turn")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--image_size", type=int, default=224)
    parser.add_argument("--steps", type=int, default=2, help="of training; 0: none")
    parser.add_argument("--model", default="resnet50")
    parser.add_argument("--batch_size", type=int, default=1, help="labelled images per step")
    parser.add_argument("--bfloat16", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        paths = _write(Path(directory), 256)
        data = _dataset(paths, args.image_size)
        turns = {
            "tf.data by record": lambda: _by_place(data, args.images),
            "tf.data by order": lambda: _by_order(paths, args.images, args.image_size),
            "Pillow": lambda: _pillow(paths, args.images, args.image_size),
        }
        _print_input(turns, args.images, args.turns)
        if args.steps:
            _print_step(data, args)


def _write(directory: Path, count: int) -> list[Path]:
    """Writes JPEGs with as much detail as photographs: about 100 kB each, as in ImageNet."""
    rng = np.random.default_rng(0)
    paths = []
    for n in range(count):
        coarse = rng.integers(0, 256, (24, 32, 3), np.uint8)
        picture = Image.fromarray(coarse).resize((500, 375), Image.Resampling.BICUBIC)
        noise = rng.normal(0, 12, (375, 500, 3))
        pixels = np.clip(np.asarray(picture) + noise, 0, 255).astype(np.uint8)
        paths.append(directory / f"{n}.JPEG")
        Image.fromarray(pixels).save(paths[-1], quality=90)
    return paths


def _dataset(paths: list[Path], image_size: int) -> StreamedDataset:
    files = image_index.of_files([(path, n % 10) for n, path in enumerate(paths)])
    return StreamedDataset(files, files, 1000, tuple(map(str, range(1000))), image_size)


def _by_place(data: StreamedDataset, count: int) -> None:
    n = len(data.labels)
    split = Split(np.arange(n), np.arange(n), np.arange(0))
    for _ in streaming.batches(data, split, seed=0, start=0, stop=count // 64, sizes=(64, 0)):
        pass


def _by_order(paths: list[Path], count: int, size: int) -> None:
    """Reads the same images in the files' order, with a shuffle buffer."""
    import tensorflow as tf

    def decode(path, number):
        return crops.training(tf.io.read_file(path), number, size)

    names = [str(paths[i % len(paths)]) for i in range(count)]
    numbers = np.stack([np.zeros(count, np.int64), np.arange(count)], axis=1)
    source = tf.data.Dataset.from_tensor_slices((names, numbers)).shuffle(256, seed=0)
    images = source.map(decode, num_parallel_calls=tf.data.AUTOTUNE).batch(64).prefetch(2)
    for _ in images.as_numpy_iterator():
        pass


def _pillow(paths: list[Path], count: int, size: int) -> None:
    """Uses one thread: opens, crops a random window, resizes, flips, as torchvision does."""
    rng = np.random.default_rng(0)
    for n in range(count):
        image = Image.open(io.BytesIO(paths[n % len(paths)].read_bytes())).convert("RGB")
        side = int(rng.integers(106, 376))
        left, top = (int(rng.integers(x - side + 1)) for x in image.size)
        box = (left, top, left + side, top + side)
        image = image.resize((size, size), Image.Resampling.BICUBIC, box)
        if rng.random() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        np.asarray(image)


def _print_input(turns: dict[str, Callable[[], None]], images: int, count: int) -> None:
    cores = len(os.sched_getaffinity(0))
    seconds: dict[str, list[float]] = {name: [] for name in turns}
    for run in turns.values():
        run()  # warms up
    for _ in range(count):
        for name, run in turns.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    print(f"host input, {cores} cores, medians of {count} turns:")
    rates = {}
    for name, values in seconds.items():
        threads = 1 if name == "Pillow" else cores
        rates[name] = images / statistics.median(values) / threads
        spread = (max(values) - min(values)) / statistics.median(values)
        print(f"  {name:18} {rates[name]:7.1f} images/s per core (turns differ by {spread:.0%})")
    for name in list(rates)[:2]:
        print(f"  {name} / Pillow: {rates[name] / rates['Pillow']:.2f} a core")


def _print_step(data: StreamedDataset, args: argparse.Namespace) -> None:
    """Measures the FixMatch step on batches that are available at once."""
    config = fixmatch_imagenet.get_config()
    config.model, config.bfloat16 = args.model, args.bfloat16
    config.image_size = args.image_size
    config.per_worker_batch_size = 0
    config.batch_size = args.batch_size
    n = len(data.labels)
    experiment = _build(config, data, Split(np.arange(n), np.arange(n), np.arange(0)))
    rng = np.random.default_rng(0)

    def batch(size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        shape, index = (size, *data.image_shape), np.arange(size, dtype=np.int32)
        return rng.integers(0, 256, shape, np.uint8), rng.integers(0, 1000, size, np.int32), index

    raw = RawBatch(*batch(args.batch_size), *batch(args.batch_size * experiment.uratio))
    warm = 2
    state, metric_sums = (
        parallel.replicate(x, experiment.devices)
        for x in (
            experiment.init_state(),
            jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), experiment.shapes["window"]),
        )
    )
    run = experiment.compile_steps()

    def spread(batch: RawBatch) -> RawBatch:
        return parallel.spread(batch, experiment.devices)

    with Stream(iter([raw] * (args.steps + warm)), spread) as stream:
        state, metric_sums = jax.block_until_ready(run(state, metric_sums, stream, warm))
        stream.waited, start = 0.0, time.perf_counter()
        jax.block_until_ready(run(state, metric_sums, stream, args.steps))
        seconds = time.perf_counter() - start
    device = experiment.devices[0]
    memory = device.memory_stats() or {}
    precision = "bfloat16" if args.bfloat16 else "float32"
    print(
        f"step of FixMatch, {args.model}, {args.batch_size} labelled images of {args.image_size}, "
        f"{precision}, {len(experiment.devices)} {device.device_kind}:\n"
        f"  {args.steps * experiment.images_per_step / seconds:.1f} images/s (each view counted), "
        f"{stream.waited / seconds:.2%} of the time waiting for data"
    )
    if "peak_bytes_in_use" in memory:
        print(f"  peak memory {memory['peak_bytes_in_use'] / 2**30:.1f} GiB")


def _build(config, data, split):
    """Builds what `recipe.build` returns, for data that are not a TFDS data set."""
    from unittest import mock

    with mock.patch.object(recipe, "load_data", return_value=(data, split)):
        return recipe.build(config)


if __name__ == "__main__":
    main()
