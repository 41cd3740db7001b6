"""Creates run directories as training leaves them, without training or checkpoints."""

import json

import jax
import numpy as np
from PIL import Image

from helpers.tiny import tiny_config
from ssljax.run import directory
from ssljax.storage.checkpoints import Checkpoints


def untrained(experiment, workdir, *, step):
    """Writes the run of an experiment with its initial weights, as if they were those of `step`."""
    state = experiment.init_state().replace(step=np.int32(step))
    window = experiment.shapes["window"]
    directory.open_directory(workdir, experiment)
    with Checkpoints(workdir, keep=0) as checkpoints:
        empty = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), window)
        checkpoints.save(step, {"state": state, "window": empty})
    row = {"step": step, "test/accuracy_ema": 0.5, "test/accuracy_raw": 0.5}
    (workdir / "metrics.jsonl").write_text(json.dumps(row) + "\n")
    return workdir


VERSIONS = {"python": "3.11.7", "jax": "0.10.2"}


def config_of(**overrides):
    """Returns the tiny recipe; a double underscore stands for the dot in a knob's name."""
    config = tiny_config(overrides.get("method", "fixmatch"))
    for knob, value in overrides.items():
        outer, _, inner = knob.rpartition("__")
        (config[outer] if outer else config)[inner] = value
    return json.loads(json.dumps(config.to_dict()))


def make(
    workdir, *, seed=1, steps=None, evaluations=25, valid=100, classes=10, part="test", **overrides
):
    """Writes a run with `evaluations` evaluations, random by its seed; cut short after `steps`."""
    rng = np.random.default_rng(seed)
    overrides = {"dataset": f"digits.{seed}@40-{valid}", "num_steps": 10 * evaluations} | overrides
    config = config_of(**overrides)
    workdir.mkdir(parents=True)
    rows = []
    for i in range(1, evaluations + 1):
        if 10 * i > (steps or config["num_steps"]):
            break
        row = {"step": 10 * i, "loss/total": 2 / i, "guess/mask_rate": i / 30}
        row |= {"guess/accuracy": 0.9 - 0.5 / i, "guess/accuracy_masked": 0.9 if i > 1 else None}
        parts = {"valid", part} if valid else {part}
        row |= {f"{p}/accuracy_{w}": rng.random() for p in sorted(parts) for w in ("raw", "ema")}
        rows.append(row)
    write(workdir / "config.json", config)
    write(workdir / "data.json", {"image_shape": [8, 8, 1], "class_names": names(classes)})
    lists = {"labeled": 40, "unlabeled": 1337, "valid": valid}
    write(workdir / "split.json", {"hash": "…"} | {k: [*range(n)] for k, n in lists.items()})
    start = {"step": 0, "versions": VERSIONS, "devices": "1 × cpu", "machine": "Linux x86_64"}
    write(workdir / "environment.json", {"starts": [start]})
    (workdir / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    predictions(workdir / "predictions.npz", rng, classes, len(rows) * 10, part)
    Image.new("RGB", (32, 32 * classes)).save(workdir / "labelled.png")
    return workdir


def names(classes):
    return [f"<class {i}>" for i in range(classes)]


def predictions(path, rng, classes, step, part="test", count=200):
    labels = rng.integers(0, classes, count).astype(np.int32)
    predicted = np.where(rng.random(count) < 0.8, labels, rng.integers(0, classes, count))
    mistakes = np.flatnonzero(predicted != labels)[:5].astype(np.int32)
    np.savez(
        path,
        step=step,
        part=part,
        labels=labels,
        predicted=predicted.astype(np.int32),
        confidence=rng.uniform(1 / classes, 1, count).astype(np.float32),
        mistakes=mistakes,
        mistake_images=rng.integers(0, 255, (len(mistakes), 8, 8, 1)).astype(np.uint8),
    )


def write(path, value):
    path.write_text(json.dumps(value))
