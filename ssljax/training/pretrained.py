"""Weights that training starts with in place of random ones: `config.init_from`."""

import hashlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from flax.traverse_util import flatten_dict

from ssljax import paths
from ssljax.errors import UsageError
from ssljax.network import network_weights
from ssljax.storage import runs
from ssljax.storage.checkpoints import Checkpoints

PyTree = Any
_FIELD = "config.init_from"


class Pretrained(NamedTuple):
    """Weights of a network, and whose they are."""

    params: PyTree  # nested dicts of float32 arrays
    batch_stats: PyTree  # so; {}: the network has none
    class_names: tuple[str, ...]  # that the last layer knows
    source: str  # the value of `config.init_from`
    step: int  # of the run that they are of

    @property
    def record(self) -> dict[str, Any]:
        """What `init_from.json` of a run holds."""
        weights = {"params": self.params, "batch_stats": self.batch_stats}
        return {"init_from": self.source, "step": self.step, "sha256": checksum(weights)}


def read(source: str) -> Pretrained:
    """The moving average's weights in the newest checkpoint of a run directory.

    Neither its recipe nor its data are looked at.

    Args:
      source: the path of the directory.

    Raises:
      UsageError: there is none, it holds no checkpoint, or that cannot be read.
    """
    if "://" in source:
        raise UsageError(f"{_FIELD} is the URL {source}; allowed: the path of a run directory")
    workdir = Path(paths.expand(source, _FIELD))
    if not workdir.is_dir():
        what = "is a file" if workdir.exists() else "does not exist"
        raise UsageError(f"{_FIELD} {source} {what}; allowed: a run directory")
    runs.require_one(workdir, _FIELD)
    with Checkpoints(workdir, keep=0) as checkpoints:
        newest = checkpoints.restore_newest()
    if newest is None:
        raise UsageError(f"{_FIELD} {source} holds no checkpoint yet")
    step, saved = newest
    try:
        params, batch_stats = network_weights(saved["state"], "ema")
        found = [flatten_dict(tree, sep="/") for tree in (params, batch_stats)]
        if not all(np.issubdtype(x.dtype, np.floating) for tree in found for x in tree.values()):
            raise TypeError("its weights are no numbers")
    except (KeyError, AttributeError, TypeError, ValueError) as error:
        raise UsageError(
            f"{_FIELD} {source}: its checkpoint of step {step} is no state of training: "
            f"{type(error).__name__} {error}"
        ) from error
    names = tuple(runs.data_record(workdir)["class_names"])
    return Pretrained(params, batch_stats, names, source, step)


def require_fits(start: Pretrained, params: PyTree, batch_stats: PyTree, num_classes: int) -> None:
    """Compares weights with those that a network has.

    Args:
      params, batch_stats: arrays or shapes of the network's, beside which `params` may have heads.

    Raises:
      UsageError: they are of another number of classes, or of other names or shapes.
    """
    given = f"{_FIELD} {start.source}"
    if len(start.class_names) != num_classes:
        raise UsageError(
            f"{given} has {len(start.class_names)} classes; allowed: {num_classes}, as many as "
            "config.dataset"
        )
    params = {name: value for name, value in params.items() if name != "heads"}
    for here, there in ((params, start.params), (batch_stats, start.batch_stats)):
        expected, found = (
            {name: list(x.shape) for name, x in flatten_dict(tree, sep="/").items()}
            for tree in (here, there)
        )
        for name in [*expected, *found]:
            if expected.get(name) != found.get(name):
                raise UsageError(
                    f"{given} does not fit config.model: "
                    + _difference(name, found.get(name), expected.get(name))
                )


def _difference(name: str, found: list[int] | None, expected: list[int] | None) -> str:
    """Of an array that has other shapes; None: there is none."""
    if found is None:
        return f"it has no {name}, which is {expected} there"
    if expected is None:
        return f"it has {name} {found}, which config.model has not"
    return f"its {name} is {found}; allowed: {expected}"


def checksum(weights: PyTree) -> str:
    """SHA-256 of arrays in nested dicts: their names, types, shapes and values."""
    digest = hashlib.sha256()
    for name, array in sorted(flatten_dict(weights, sep="/").items()):
        digest.update(f"{name} {array.dtype} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
