"""Weights that training starts with instead of random ones: `config.init_from`.

They come from another run, or from a file of published weights, see `ssljax/pretrained/`.
"""

from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from ssljax import paths
from ssljax.errors import UsageError
from ssljax.network import network_weights
from ssljax.pretrained import weight_files
from ssljax.pretrained.fit import fit
from ssljax.pretrained.weight_files import FIELD, Weights, checksum
from ssljax.storage import runs
from ssljax.storage.checkpoints import Checkpoints

PyTree = Any


class Pretrained(NamedTuple):
    """Weights of a network, and their source."""

    params: PyTree  # nested dicts of float32 arrays; missing ones are randomly initialised
    batch_stats: PyTree  # the same; {}: the network has none
    class_names: tuple[str, ...]  # classes of the last layer; (): unknown, or the layer is new
    lines: tuple[str, ...]  # messages on their source, what was left out, and what is new
    record: dict[str, Any]  # content of a run's `init_from.json`


def read(source: str, sha256: str = "") -> Weights:
    """The weights of a run directory or a file, with their original names.

    The weights of a run are the moving average in its newest checkpoint; its recipe and data are
    not read.

    Args:
      sha256: the required checksum, hexadecimal; "": any.

    Raises:
      UsageError: the source does not exist, has no checkpoint, cannot be read, or has another
        checksum.
    """
    is_run = "://" not in source and Path(paths.expand(source, FIELD)).is_dir()
    found = _of_run(source) if is_run else weight_files.read(source)
    if sha256 not in ("", found.sha256):
        raise UsageError(
            f"{FIELD} {source} has the SHA-256 {found.sha256}; allowed by {FIELD}_sha256: {sha256}"
        )
    return found


def _of_run(source: str) -> Weights:
    workdir = Path(paths.expand(source, FIELD))
    runs.require_one(workdir, FIELD)
    with Checkpoints(workdir, keep=0) as checkpoints:
        newest = checkpoints.restore_newest()
    if newest is None:
        raise UsageError(f"{FIELD} {source} holds no checkpoint yet")
    step, saved = newest
    try:
        params, batch_stats = network_weights(saved["state"], "ema")
        found = {**flatten_dict(params, sep="/"), **flatten_dict(batch_stats, sep="/")}
        if not all(np.issubdtype(x.dtype, np.floating) for x in found.values()):
            raise TypeError("its weights are not numbers")
    except (KeyError, AttributeError, TypeError, ValueError) as error:
        raise UsageError(
            f"{FIELD} {source}: its checkpoint of step {step} is not a training state: "
            f"{type(error).__name__} {error}"
        ) from error
    names = tuple(runs.data_record(workdir)["class_names"])
    digest = checksum({"params": params, "batch_stats": batch_stats})
    return Weights(found, source, digest, is_ours=True, class_names=names, step=step)


def fitted(
    weights: Weights, model: nn.Module, name: str, *, image_shape: tuple[int, int, int]
) -> Pretrained:
    """Fits weights into a network.

    Args:
      name: `config.model`, for messages.
      image_shape: (height, width, channels) of the network's images.

    Raises:
      UsageError: they do not fit, see `pretrained.fit.fit`.
    """
    found = fit(weights, model, name, image_shape=image_shape)
    record = {"init_from": weights.name, "step": weights.step, "sha256": weights.sha256}
    return Pretrained(
        unflatten_dict(found.params, sep="/"),
        unflatten_dict(found.batch_stats, sep="/"),
        weights.class_names if found.has_head else (),
        found.lines,
        {key: value for key, value in record.items() if value is not None},
    )
