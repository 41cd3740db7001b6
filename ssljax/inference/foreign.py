"""Which unlabelled images look like none of the labelled ones.

Features are `[N, D]`, of a network's last layer.
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

ENOUGH = 50  # validation images from which a limit can be worked out
_KEPT = 0.95  # share of validation images that do not look foreign
_NEIGHBORS = 5


class Foreign(NamedTuple):
    """What looks foreign: an image that is far from all labelled ones.

    The distance is that to the fifth nearest normalised feature of a labelled image (Sun et al.,
    2022, "Out-of-distribution detection with deep nearest neighbors"). The limit is the distance
    that 95 % of the validation images keep within.
    """

    search: NearestNeighbors  # among the labelled images
    limit: float

    def marks(self, features: np.ndarray) -> np.ndarray:
        """Whether images look foreign, bool `[N]`, by their features."""
        return _distances(self.search, features) > self.limit

    @staticmethod
    def share(marked: int, images: int) -> float:
        """An estimate of the share of foreign images in a pool, 0..1: of the others, 5 % are
        marked too."""
        above = marked / max(images, 1)
        return float(np.clip((above - (1 - _KEPT)) / _KEPT, 0, 1))


def fit(labeled: np.ndarray, known: np.ndarray) -> Foreign:
    """Works out the limit.

    Args:
      labeled: features of the labelled images.
      known: features of other images of the same classes, which the model was not trained on.
    """
    neighbors = min(_NEIGHBORS, len(labeled))
    search = NearestNeighbors(n_neighbors=neighbors).fit(normalize(labeled))
    return Foreign(search, float(np.quantile(_distances(search, known), _KEPT)))


def of_run(trained: Trained, data: Dataset | StreamedDataset, split: Split) -> Foreign | None:
    """The limit by the labelled and the validation images of a run.

    Returns:
      None: there are fewer than 50 validation images that are no labelled ones.
    """
    known = np.setdiff1d(labeled_validation(data, split), split.labeled)
    if len(known) < ENOUGH:
        return None
    return fit(*(_features(trained, data, indices) for indices in (split.labeled, known)))


def _features(trained: Trained, data: Dataset | StreamedDataset, indices: np.ndarray) -> np.ndarray:
    """`[N, D]` of training images, without those that cannot be read."""
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
