"""The arrays of an NPU bundle, and their names."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from ssljax.data.datasets import Dataset
from ssljax.data.load import labeled_validation
from ssljax.experiment import Experiment
from ssljax.training.state import TrainState

PyTree = Any


def flat(tree: PyTree, prefix: str) -> dict[str, Any]:
    """Flattens nested dicts to `{"param/Conv_0/kernel": leaf}`."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {"/".join([prefix, *(str(k.key) for k in path)]): leaf for path, leaf in leaves}


def nested(template: PyTree, prefix: str, values: Mapping[str, Any]) -> PyTree:
    """Inverts `flat`."""
    names = list(flat(template, prefix))
    return jax.tree.unflatten(jax.tree.structure(template), [values[name] for name in names])


def weights(state: TrainState) -> dict[str, np.ndarray]:
    """Returns the content of `weights.npz`."""
    trees = {
        "param": state.params,
        "stat": state.batch_stats,
        "ema": state.ema,
        "ema_stat": state.ema_batch_stats,
    }
    return {
        name: np.asarray(x)
        for prefix, tree in trees.items()
        for name, x in flat(tree, prefix).items()
    }


def data(experiment: Experiment) -> dict[str, np.ndarray]:
    """Returns the content of `data.npz`."""
    dataset = experiment.dataset
    assert isinstance(dataset, Dataset)
    valid = labeled_validation(dataset, experiment.split)
    return {
        "images": dataset.images,
        "labels": dataset.labels.astype(np.int32),
        "labeled": experiment.split.labeled.astype(np.int64),
        "unlabeled": experiment.split.unlabeled.astype(np.int64),
        "valid": np.asarray(valid).astype(np.int64),
        "test_images": dataset.test_images,
        "test_labels": dataset.test_labels.astype(np.int32),
    }
