"""Classifiers on features, for a few labels: linear, nearest neighbours and label propagation.

All functions take features `[n, D]` float32 and labels `[n]`, and return the predicted classes.
"""

from typing import Any

import numpy as np
import scipy.sparse as sparse

_STRENGTHS = tuple(10.0**k for k in range(-4, 2))  # candidates for the inverse regularisation
_FOLDS = 5  # number of folds of the cross-validation that selects among them
_NEIGHBOURS = 20  # largest number of neighbours that decide on a class
_EDGES = 20  # number of neighbours that a label spreads to
_ALPHA = 0.99  # weight of its neighbours in an image's label
_STEPS = 100
_MOST = 20_000  # largest number of images in the graph of label propagation


class Standard:
    """Scales features so that all images of the pool, labelled or not, have mean 0, deviation 1."""

    def __init__(self, pool: np.ndarray):
        self._mean = pool.mean(axis=0)
        self._std = np.maximum(pool.std(axis=0), 1e-6)

    def __call__(self, features: np.ndarray) -> np.ndarray:
        return (features - self._mean) / self._std


def linear(features: np.ndarray, labels: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """Logistic regression; cross-validation of its log loss selects the regularisation.

    If a class has a single image, no image is left for validation, and the inverse regularisation
    is 10⁻².

    Args:
      features: standardised features, see `Standard`.
      asked: `[m, D]`, standardised features of the images whose classes are predicted.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_score

    def model(strength: float) -> Any:
        return LogisticRegression(C=strength, max_iter=300, tol=1e-3)

    folds = min(_FOLDS, _rarest(labels))
    best = 1e-2
    if folds > 1:
        parts = StratifiedKFold(folds, shuffle=True, random_state=0)
        scores = [
            cross_val_score(model(c), features, labels, cv=parts, scoring="neg_log_loss").mean()
            for c in _STRENGTHS
        ]
        best = _STRENGTHS[int(np.argmax(scores))]
    return model(best).fit(features, labels).predict(asked)


def neighbours(features: np.ndarray, labels: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """The most frequent class of the k nearest labelled images by cosine, weighted by distance.

    k is the number of images of the rarest class, at most 20.
    """
    from sklearn.neighbors import KNeighborsClassifier

    count = min(_NEIGHBOURS, _rarest(labels))
    model = KNeighborsClassifier(count, metric="cosine", weights="distance")
    return model.fit(_unit(features), labels).predict(_unit(asked))


class Propagation:
    """Label propagation (Zhou et al., 2004, https://arxiv.org/abs/1904.04717).

    The graph connects each image of the pool with its nearest ones, with weights max(0, cosine)³.
    It does not depend on the labels, so that it is built once.

    Args:
      pool: features of all training images, labelled or not.
      asked: features of the images whose classes are predicted; they are not in the graph.
    """

    def __init__(self, pool: np.ndarray, asked: np.ndarray):
        self._pool = _unit(pool)
        self._nodes = self._pool
        if len(pool) > _MOST:
            chosen = np.random.RandomState(0).choice(len(pool), _MOST, replace=False)
            self._nodes = self._pool[np.sort(chosen)]
        weights = _near(self._nodes, self._nodes, _EDGES + 1)
        weights.setdiag(0)
        weights = weights.maximum(weights.T)
        total = np.maximum(weights.sum(axis=1), 1e-12)
        scale = sparse.diags_array(1 / np.sqrt(total))
        self._graph = scale @ weights @ scale
        self._to_asked = _near(_unit(asked), self._nodes, _EDGES)

    def __call__(self, labeled: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
        """The predicted classes.

        Args:
          labeled: `[n]`, the indices of the labelled images in the pool.
        """
        known = np.eye(classes, dtype=np.float32)[labels]
        known /= np.maximum(known.sum(axis=0), 1)  # each class starts with the same sum
        # A labelled image outside the graph gives its label to the nearest node.
        start = _near(self._pool[labeled], self._nodes, 1).T @ known
        spread = start
        for _ in range(_STEPS):
            spread = _ALPHA * (self._graph @ spread) + (1 - _ALPHA) * start
        spread /= np.maximum(spread.sum(axis=1, keepdims=True), 1e-12)
        return np.argmax(self._to_asked @ spread, axis=1)


def _near(rows: np.ndarray, columns: np.ndarray, count: int) -> Any:
    """Sparse weights max(0, cosine)³ between each row and its nearest columns."""
    from sklearn.neighbors import NearestNeighbors

    count = min(count, len(columns))
    distance, index = NearestNeighbors(n_neighbors=count).fit(columns).kneighbors(rows)
    cosine = 1 - distance**2 / 2  # as all rows have length 1
    weights = np.maximum(cosine, 0).astype(np.float32) ** 3
    starts = np.arange(0, index.size + 1, count)
    shape = len(rows), len(columns)
    return sparse.csr_array((weights.reshape(-1), index.reshape(-1), starts), shape=shape)


def _unit(features: np.ndarray) -> np.ndarray:
    return features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)


def _rarest(labels: np.ndarray) -> int:
    """The number of images of the rarest class among labels `[n]`, 1 or more."""
    return int(np.bincount(labels)[np.unique(labels)].min())
