"""How many unlabelled images look like none of the labelled ones. NumPy and scikit-learn.

Features are `[N, D]`, of a network's last layer.
"""

from typing import NamedTuple

import numpy as np
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import normalize

KEPT = 0.95  # share of images of the labelled kind that are not taken for foreign ones


class Foreign(NamedTuple):
    """Which images of a pool look foreign."""

    distance: np.ndarray  # [N] from each image of the pool to the labelled ones nearest to it
    limit: float  # above it an image looks foreign
    share: float  # estimated share of foreign images in the pool, 0..1


def foreign(
    pool: np.ndarray, labeled: np.ndarray, known: np.ndarray, *, neighbors: int = 5
) -> Foreign:
    """Compares distances to labelled images: those of a pool, and those of images that are known to
    be of the labelled kind (Sun et al., 2022: the distance to the k-th nearest normalised feature).

    The limit is the distance that 95 % of the known images keep within. Images of a pool without
    any foreign one are above it in 5 % of the cases, which the share takes off.

    Args:
      pool: features of the unlabelled images.
      labeled: features of the labelled images.
      known: features of images of the same classes that the model was not trained on.
      neighbors: k; of fewer labelled images, all.
    """
    k = min(neighbors, len(labeled))
    search = NearestNeighbors(n_neighbors=k).fit(normalize(labeled))

    def distance(features: np.ndarray) -> np.ndarray:
        if not len(features):
            return np.zeros(0)
        return search.kneighbors(normalize(features))[0][:, -1]

    of_pool = distance(pool)
    limit = float(np.quantile(distance(known), KEPT))
    above = float(np.mean(of_pool > limit)) if len(of_pool) else 0.0
    return Foreign(of_pool, limit, float(np.clip((above - (1 - KEPT)) / KEPT, 0, 1)))
