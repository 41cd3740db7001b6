"""Strategies of active learning on arrays: the selection of unlabelled images to label next.

Each returns the selected images as indices into the pool, `[budget]`, in order of selection.
`probabilities` are `[N, C]` and `features` `[N, D]`, both for the pool.
"""

import warnings

import numpy as np
from sklearn.cluster import KMeans, MiniBatchKMeans
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.neighbors import NearestNeighbors

_MAX_CLUSTERS = 500  # as used by the authors of TypiClust
_NEIGHBORS = 20
_MANY_CLUSTERS = 50  # above this number, MiniBatchKMeans is used, as by the authors


def margin(probabilities: np.ndarray, budget: int) -> np.ndarray:
    """Selects the images with the smallest probability margin of the top two classes (Scheffer et
    al., 2001)."""
    return _lowest(margins(probabilities), budget)


def entropy(probabilities: np.ndarray, budget: int) -> np.ndarray:
    """Selects the images whose predicted distribution has the largest entropy (Shannon)."""
    return _lowest(-entropies(probabilities), budget)


def committee(members: np.ndarray, budget: int) -> np.ndarray:
    """Selects the images on which the models disagree most.

    Args:
      members: `[K, N, C]` probabilities of K models.
    """
    return _lowest(-disagreements(members), budget)


def margins(probabilities: np.ndarray) -> np.ndarray:
    """Returns the margins `[N]` of the likeliest class over the second likeliest, 0..1."""
    ordered = np.sort(np.asarray(probabilities, np.float64), axis=-1)
    return ordered[:, -1] - ordered[:, -2]


def entropies(probabilities: np.ndarray) -> np.ndarray:
    """Returns the entropy `[..., N]` of each distribution, in nats."""
    p = np.asarray(probabilities, np.float64)
    return -np.sum(p * np.log(np.maximum(p, 1e-12)), axis=-1)


def disagreements(members: np.ndarray) -> np.ndarray:
    """Returns `[N]` the entropy of the mean of K distributions minus their mean entropy, in nats.

    This is the mutual information of prediction and model (Houlsby et al., 2011); 0: all agree.
    """
    return entropies(np.mean(members, axis=0)) - np.mean(entropies(members), axis=0)


def coreset(features: np.ndarray, labeled: np.ndarray, budget: int) -> np.ndarray:
    """Selects repeatedly the image furthest from all labelled or selected ones (Sener & Savarese,
    2018).

    Args:
      labeled: `[L]` indices of labelled images among the features, which are not selected. If
        empty, the first image is the one nearest to the mean.
    """
    features = np.asarray(features, np.float64)
    distance = np.full(len(features), np.inf)
    for index in labeled:
        distance = np.minimum(distance, _distances(features, features[index]))
    chosen: list[int] = []
    for _ in range(budget):
        if np.isinf(distance).all():
            index = int(np.argmin(_distances(features, features.mean(axis=0))))
        else:
            index = int(np.argmax(distance))
        chosen.append(index)
        distance = np.minimum(distance, _distances(features, features[index]))
        distance[index] = -1  # not selected again, even if images are equal
    return np.array(chosen, int)


def typical(features: np.ndarray, labeled: np.ndarray, budget: int, *, seed: int = 0) -> np.ndarray:
    """Selects the most typical image of each cluster without labels: TypiClust (Hacohen et al.,
    2022), designed for few or no labels.

    Clusters are found by k-means; their number equals the number of labels after the selection, at
    most 500. The most typical image of a cluster has the smallest mean distance to its 20 nearest
    neighbours there. Clusters with the fewest labels come first; among these, the largest.

    Args:
      labeled: `[L]` indices of labelled images among the features, which are not selected.
    """
    features = np.asarray(features, np.float64)
    clusters = min(len(labeled) + budget, _MAX_CLUSTERS, len(features))
    cluster_of = _clusters(features, clusters, seed)
    taken = np.zeros(len(features), bool)
    taken[labeled] = True
    size = np.bincount(cluster_of, minlength=clusters)
    labels_in = np.bincount(cluster_of[taken], minlength=clusters)
    ranked = {}  # the images of each cluster, the most typical first
    chosen: list[int] = []
    while len(chosen) < budget:
        free = np.bincount(cluster_of[~taken], minlength=clusters) > 0
        order = np.lexsort((-size, labels_in, ~free))
        cluster = int(order[0])
        if cluster not in ranked:
            ranked[cluster] = _by_typicality(features, np.flatnonzero(cluster_of == cluster))
        index = next(i for i in ranked[cluster] if not taken[i])
        chosen.append(int(index))
        taken[index] = True
        labels_in[cluster] += 1
    return np.array(chosen, int)


def pixel_features(images: np.ndarray, *, dimensions: int = 64) -> np.ndarray:
    """Returns features `[N, D]` without a model: the principal components of the pixels.

    Args:
      images: uint8 `[N, H, W, C]`.
    """
    flat = images.reshape(len(images), -1).astype(np.float32) / 255
    return PCA(min(dimensions, *flat.shape), random_state=0).fit_transform(flat)


def _lowest(values: np.ndarray, budget: int) -> np.ndarray:
    return np.argsort(values, kind="stable")[:budget]


def _distances(features: np.ndarray, center: np.ndarray) -> np.ndarray:
    return np.linalg.norm(features - center, axis=1)


def _clusters(features: np.ndarray, clusters: int, seed: int) -> np.ndarray:
    kind = KMeans if clusters <= _MANY_CLUSTERS else MiniBatchKMeans
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # equal images give fewer clusters
        return kind(clusters, n_init=3, random_state=seed).fit_predict(features)


def _by_typicality(features: np.ndarray, members: np.ndarray) -> np.ndarray:
    """Returns the images of a cluster, the most typical first."""
    if len(members) < 3:
        return members
    neighbors = min(_NEIGHBORS, len(members) // 2)
    search = NearestNeighbors(n_neighbors=neighbors).fit(features[members])
    distances, _ = search.kneighbors()  # excludes each image itself
    return members[np.argsort(distances.mean(axis=1), kind="stable")]
