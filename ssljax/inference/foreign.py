"""Detects unlabelled images that differ from all labelled ones (out-of-distribution images).

Features are `[N, D]`, the input of a network's last layer.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import normalize

from ssljax.data import sources
from ssljax.data.datasets import Dataset
from ssljax.data.load import labeled_validation
from ssljax.data.splits import Split
from ssljax.data.streaming import StreamedDataset
from ssljax.inference import predict as prediction
from ssljax.trained import Trained

ENOUGH = 50  # minimum number of validation images to determine a limit
_KEPT = 0.95  # fraction of validation images within the limit
_NEIGHBORS = 5


class Foreign(NamedTuple):
    """A detector of foreign images, which are far from all labelled ones.

    The distance is that to the fifth nearest normalised feature of a labelled image (Sun et al.,
    2022, "Out-of-distribution detection with deep nearest neighbors"). The limit is the distance
    within which 95 % of the validation images lie.
    """

    search: NearestNeighbors  # index of the labelled images
    limit: float

    def marks(self, features: np.ndarray) -> np.ndarray:
        """Returns whether images look foreign, bool `[N]`, by their features."""
        return _distances(self.search, features) > self.limit

    @staticmethod
    def share(marked: int, images: int) -> float:
        """Estimates the fraction of foreign images in a pool, 0..1; 5 % of the other images are
        marked as well."""
        above = marked / max(images, 1)
        return float(np.clip((above - (1 - _KEPT)) / _KEPT, 0, 1))


def fit(labeled: np.ndarray, known: np.ndarray) -> Foreign:
    """Fits the detector and its limit.

    Args:
      labeled: features of the labelled images.
      known: features of other images of the same classes, which the model was not trained on.
    """
    neighbors = min(_NEIGHBORS, len(labeled))
    search = NearestNeighbors(n_neighbors=neighbors).fit(normalize(labeled))
    return Foreign(search, float(np.quantile(_distances(search, known), _KEPT)))


def of_run(trained: Trained, data: Dataset | StreamedDataset, split: Split) -> Foreign | None:
    """Fits the detector on the labelled and validation images of a run.

    Returns:
      The detector; None if fewer than 50 validation images are not labelled ones.
    """
    known = np.setdiff1d(labeled_validation(data, split), split.labeled)
    if len(known) < ENOUGH:
        return None
    return fit(*(_features(trained, data, indices) for indices in (split.labeled, known)))


def _features(trained: Trained, data: Dataset | StreamedDataset, indices: np.ndarray) -> np.ndarray:
    """Returns features `[N, D]` of training images, without unreadable ones."""
    source = sources.of_images(data, indices)

    def parts() -> Iterator[np.ndarray]:
        for _, found in prediction.predict(prediction.of_run(trained, source), source):
            assert found.features is not None
            yield found.features

    return np.concatenate([*parts()])


def _distances(search: NearestNeighbors, features: np.ndarray) -> np.ndarray:
    if not len(features):
        return np.zeros(0)
    return search.kneighbors(normalize(features))[0][:, -1]
