"""Which unlabelled images to label next: strategies of active learning, on arrays.

Each returns the chosen images as indices into the pool, `[budget]`, the first one first.
`probabilities` are `[N, C]`, `features` `[N, D]`, both of the pool.
"""

import warnings

import numpy as np
from sklearn.cluster import KMeans, MiniBatchKMeans
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.neighbors import NearestNeighbors

_MAX_CLUSTERS = 500  # as the authors of TypiClust
_NEIGHBORS = 20
_MANY_CLUSTERS = 50  # above, MiniBatchKMeans, as the authors


def margin(probabilities: np.ndarray, budget: int) -> np.ndarray:
    """The images whose two likeliest classes are closest in probability (Scheffer et al., 2001)."""
    return _lowest(margins(probabilities), budget)


def entropy(probabilities: np.ndarray, budget: int) -> np.ndarray:
    """The images whose predicted distribution has the largest entropy (Shannon)."""
    return _lowest(-entropies(probabilities), budget)


def committee(members: np.ndarray, budget: int) -> np.ndarray:
    """The images on which models disagree most.

    Args:
      members: `[K, N, C]` probabilities of K models.
    """
    return _lowest(-disagreements(members), budget)


def margins(probabilities: np.ndarray) -> np.ndarray:
    """`[N]` probability of the likeliest class above the second one, 0..1."""
    ordered = np.sort(np.asarray(probabilities, np.float64), axis=-1)
    return ordered[:, -1] - ordered[:, -2]


def entropies(probabilities: np.ndarray) -> np.ndarray:
    """`[..., N]` entropy of each distribution, in nats."""
    p = np.asarray(probabilities, np.float64)
    return -np.sum(p * np.log(np.maximum(p, 1e-12)), axis=-1)


def disagreements(members: np.ndarray) -> np.ndarray:
    """`[N]` entropy of the mean of K distributions minus their mean entropy, in nats.

    The mutual information of prediction and model (Houlsby et al., 2011): 0 where all agree.
    """
    return entropies(np.mean(members, axis=0)) - np.mean(entropies(members), axis=0)


def coreset(features: np.ndarray, labeled: np.ndarray, budget: int) -> np.ndarray:
    """Each time the image furthest from all that are labelled or chosen (Sener & Savarese, 2018).

    Args:
      labeled: `[L]` indices of labelled images among the features; they are not chosen. Without
        any, the first image is the one nearest to the mean.
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
        distance[index] = -1  # not again, even where images are equal
    return np.array(chosen, int)


def typical(features: np.ndarray, labeled: np.ndarray, budget: int, *, seed: int = 0) -> np.ndarray:
    """The most typical image of each cluster that has no label yet: TypiClust (Hacohen et al.,
    2022), made for few labels or none.

    Clusters are of k-means, as many as there will be labels, 500 at most. The most typical image
    of a cluster has the smallest mean distance to its 20 nearest neighbours there. Clusters with
    the fewest labels come first, of these the largest.

    Args:
      labeled: `[L]` indices of labelled images among the features; they are not chosen.
    """
    features = np.asarray(features, np.float64)
    clusters = min(len(labeled) + budget, _MAX_CLUSTERS, len(features))
    cluster_of = _clusters(features, clusters, seed)
    taken = np.zeros(len(features), bool)
    taken[labeled] = True
    size = np.bincount(cluster_of, minlength=clusters)
    labels_in = np.bincount(cluster_of[taken], minlength=clusters)
    ranked = {}  # a cluster's images, the most typical first
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
    """Features `[N, D]` without any model: the principal components of the pixels.

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
        warnings.simplefilter("ignore", ConvergenceWarning)  # equal images: fewer clusters
        return kind(clusters, n_init=3, random_state=seed).fit_predict(features)


def _by_typicality(features: np.ndarray, members: np.ndarray) -> np.ndarray:
    """The images of a cluster, those in its densest places first."""
    if len(members) < 3:
        return members
    neighbors = min(_NEIGHBORS, len(members) // 2)
    search = NearestNeighbors(n_neighbors=neighbors).fit(features[members])
    distances, _ = search.kneighbors()  # of each image to others, not to itself
    return members[np.argsort(distances.mean(axis=1), kind="stable")]
