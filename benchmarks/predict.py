"""Compares the speed of `--mode=predict` with the evaluation step on the same images in memory.

    python -m benchmarks.predict [--images=50000] [--few=10000] [--turns=5] [--files]

The network is that of the digits, the images are random 32×32 ones in an .npz file or, with
`--files`, in as many PNG files. Prediction and evaluation alternate in one process, both on all
devices and with the same batch size. Beyond the evaluation step, `predict` reads the images and
writes `predictions.csv`, `.npz` and `.html`. If other programs are running, rely on the ratio of
processor time. Peak memory is that of processes that predict `--few` images and all images.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from PIL import Image

from benchmarks.train import hardware
from configs import digits
from ssljax import network, recipe
from ssljax.data import sources
from ssljax.inference import predict
from ssljax.run import evaluate
from ssljax.trained import Trained
from ssljax.training import parallel
from ssljax.training.state import Weights
from ssljax.training.step import make_eval_step

SIZE = 32


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0], allow_abbrev=False)
    parser.add_argument("--images", type=int, default=50_000, help="how many")
    parser.add_argument("--few", type=int, default=10_000, help="how many, for the memory")
    parser.add_argument("--turns", type=int, default=5, help="of which the medians are printed")
    parser.add_argument("--files", action="store_true", help="PNG files in place of an .npz")
    parser.add_argument("--filters", type=int, default=16, help="of the network")
    parser.add_argument("--json", action="store_true", help="print one line of JSON")
    parser.add_argument("--only", help=argparse.SUPPRESS)  # predicts this path, prints the memory
    args = parser.parse_args()
    config = digits.digits("supervised")
    config.model_args.filters = args.filters
    config.cpu_devices = 0
    recipe.prepare(config)
    model = untrained(config)
    with tempfile.TemporaryDirectory() as directory:
        if args.only:
            once(model, args.only, Path(directory))
            print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
            return
        result = measure(model, args, Path(directory))
    print(json.dumps(result) if args.json else describe(result))


def untrained(config: Any) -> Trained:
    """Returns the recipe's network with its initial weights."""
    shape = (SIZE, SIZE, 3)
    made = network.make_model(config, num_classes=10, dtype=np.float32, axis_name=None)
    variables = jax.jit(lambda key: made.init(key, np.zeros((1, *shape)), train=False))(
        jax.random.key(0)
    )
    names = tuple("0123456789")
    recorded = config.to_dict()
    return Trained(made, jax.device_get(dict(variables)), shape, names, recorded, 1, "ema")


def measure(model: Trained, args: argparse.Namespace, directory: Path) -> dict[str, Any]:
    """Returns all measurements, in SI units."""
    images = np.random.default_rng(0).integers(0, 256, (args.images, SIZE, SIZE, 3), np.uint8)
    places = {}
    for count in sorted({args.few, args.images}):
        places[count] = write(images[:count], directory / str(count), files=args.files)
    run = evaluation(model, images)
    run()  # compiles
    once(model, places[args.few], directory)
    all_images = places[args.images]
    turns = [
        (timed(run), timed(lambda: once(model, all_images, directory))) for _ in range(args.turns)
    ]
    return {
        "hardware": hardware(jax.devices()),
        "images": args.images,
        "of": "PNG files" if args.files else "an .npz",
        "batch_size": model.batch_size(args.images),
        "evaluation_images_per_second": [args.images / e.wall for e, _ in turns],
        "predict_images_per_second": [args.images / p.wall for _, p in turns],
        "ratio": [e.wall / p.wall for e, p in turns],
        "ratio_of_processor_time": [e.cpu / p.cpu for e, p in turns],
        "peak_memory_bytes": {count: memory(place, args) for count, place in places.items()},
    }


def write(images: np.ndarray, place: Path, *, files: bool) -> str:
    """Writes the images as an .npz file, or as a folder of PNG files."""
    if not files:
        np.savez(place.with_suffix(".npz"), images=images)
        return str(place.with_suffix(".npz"))
    place.mkdir()
    with ThreadPoolExecutor() as pool:
        save = lambda i: Image.fromarray(images[i]).save(place / f"{i:06}.png")  # noqa: E731
        list(pool.map(save, range(len(images))))
    return str(place)


def once(model: Trained, place: str, directory: Path) -> None:
    """Does what `--mode=predict` does once the model is loaded."""
    source = sources.from_path(place, model.image_shape)
    output = directory / "predictions"
    predicting = predict.of_run(model, source)
    predict.write_directory(predicting, source, output, place, overwrite=True)


def evaluation(model: Trained, images: np.ndarray) -> Any:
    """Returns a run's evaluation of images in memory, with one set of weights."""
    devices, size = jax.devices(), model.batch_size(len(images))
    compiled = parallel.compile_evaluate(make_eval_step(model.model), devices, batch_size=size)
    values = Weights(model.variables["params"], model.variables["batch_stats"], {})
    weights = {"ema": parallel.replicate(values, devices)}
    labels = np.arange(len(images)) % 10

    def run() -> None:
        starts = range(0, len(images), size)
        batches = ((images[i : i + size], labels[i : i + size]) for i in starts)
        evaluate.mean_metrics(compiled, weights, batches)

    return run


class Seconds(NamedTuple):
    """The time that a call takes."""

    wall: float
    cpu: float  # summed over all threads


def timed(run: Any) -> Seconds:
    """Measures the time of a call."""
    wall, cpu = time.perf_counter(), time.process_time()
    run()
    return Seconds(time.perf_counter() - wall, time.process_time() - cpu)


def memory(place: str, args: argparse.Namespace) -> int:
    """Returns the peak memory of a process that predicts the images at a path."""
    command = [sys.executable, "-m", "benchmarks.predict", f"--only={place}"]
    command.append(f"--filters={args.filters}")
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return int(done.stdout.split()[-1])


def describe(result: dict[str, Any]) -> str:
    """Formats the result as text."""
    lines = [result["hardware"], f"{result['images']:,} images of {SIZE}×{SIZE}, {result['of']}:"]
    for name in ("evaluation", "predict"):
        rates = result[f"{name}_images_per_second"]
        lines.append(
            f"  {name}: {statistics.median(rates):,.0f} images/s ({min(rates):,.0f} to "
            f"{max(rates):,.0f})"
        )
    for name, what in (("ratio", "time"), ("ratio_of_processor_time", "processor time")):
        ratios = result[name]
        lines.append(
            f"  speed of predict / evaluation by {what}, turn by turn: "
            f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        )
    for count, size in result["peak_memory_bytes"].items():
        lines.append(f"  peak memory with {count:,} images: {size / 2**20:.0f} MiB")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
