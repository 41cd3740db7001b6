"""An experiment in words: what will be trained, and what may be amiss with it."""

import jax
import numpy as np

from ssljax.data import check, memory
from ssljax.data.datasets import Dataset
from ssljax.experiment import Experiment

_ROUNDS = 3  # times that an average must be able to forget where it began


def notes(experiment: Experiment) -> list[str]:
    """Warnings about a run, one line each; empty if there are none."""
    lines, steps = [], experiment.num_steps
    rates = {
        "config.ema_decay": experiment.ema_decay,
        "config.model_args.batch_norm_momentum": getattr(
            experiment.model, "batch_norm_momentum", 0.0
        ),
    }
    for knob, decay in rates.items():
        if 0 < decay < 1 and steps * (1 - decay) < _ROUNDS:
            fitting = max(0.5, 1 - 10 / steps)
            lines.append(
                f"note: {knob} is {decay}, which averages over more steps than the {steps} of this "
                "run, so that what is evaluated stays near its random start; use at most "
                f"--{knob}={fitting:.3g}"
            )
    start, names = experiment.start, experiment.dataset.class_names
    if start and start.class_names and start.class_names != names:
        pairs = enumerate(zip(start.class_names, names, strict=True))
        c = next(c for c, (theirs, ours) in pairs if theirs != ours)
        lines.append(
            f"note: the last layer of config.init_from knows other classes: {c} is "
            f"{start.class_names[c]!r} there, and {names[c]!r} here"
        )
    overlap = len(np.intersect1d(experiment.split.valid, experiment.split.labeled))
    if overlap:
        lines.append(
            f"note: {overlap} of the {len(experiment.split.valid)} validation images are labelled "
            "images that are trained on; config.unlabeled=strict keeps them apart"
        )
    own_images = experiment.config["dataset"].startswith(("folder:", "npz:", "arrays."))
    if own_images and isinstance(experiment.dataset, Dataset):
        odd = check.lines(experiment.dataset, experiment.split)
        lines += [f"note: {line}" for line in odd]
    return lines


def describe(experiment: Experiment) -> str:
    """Three lines on what will be trained on which data, followed by the notes."""
    data, split, start = experiment.dataset, experiment.split, experiment.start
    height, width, channels = data.image_shape
    where = "data: read from storage step by step, as uint8 images"
    if isinstance(data, Dataset):
        size = memory.describe(experiment.data_bytes)
        where = f"data on each device: {size} of {experiment.holds} and indices"
    where += f"; a step needs about {memory.describe(experiment.step_bytes)} more there"
    state = experiment.shapes["state"]
    trained, frozen = (
        sum(x.size for x in jax.tree.leaves(t)) for t in (state.params, state.frozen)
    )
    weights = f"{trained:,} weights" + (f" to train on {frozen:,} frozen ones" if frozen else "")
    return (
        f"{experiment.config['dataset']}: {len(split.labeled)} labelled, {len(split.unlabeled)} "
        f"unlabelled, {len(split.valid)} validation, {len(data.test_labels)} test images of "
        f"{height}×{width}×{channels}\n"
        f"{where}\n"
        f"{experiment.config['method']}: {experiment.config['model']} with {weights}, "
        f"{experiment.num_steps} steps of {experiment.images_per_step} images on "
        f"{len(experiment.devices)} {experiment.devices[0].platform} device(s)"
        + "".join(f"\n{line}" for line in (start.lines if start else ()))
        + "".join(f"\n{line}" for line in notes(experiment))
    )
