import numpy as np
import pytest

from ssljax.inference import selection

# Three clusters of very different sizes, and one image far from all of them.
CENTERS = np.array([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
SIZES = (60, 30, 15)


def clouds():
    random = np.random.default_rng(0)
    points = [center + random.normal(size=(n, 2)) for center, n in zip(CENTERS, SIZES, strict=True)]
    return np.concatenate([*points, [[40.0, 40.0]]]), np.repeat([0, 1, 2, 3], [*SIZES, 1])


def test_margin_and_entropy_by_hand():
    p = np.array([[0.5, 0.45, 0.05], [0.4, 0.3, 0.3], [0.98, 0.01, 0.01]])
    assert selection.margin(p, 3).tolist() == [0, 1, 2]
    assert selection.entropy(p, 3).tolist() == [1, 0, 2]
    np.testing.assert_allclose(selection.margins(p), [0.05, 0.1, 0.97])
    np.testing.assert_allclose(selection.entropies(np.array([[0.5, 0.5]])), [np.log(2)])


def test_a_committee_chooses_where_its_members_disagree():
    one, other = np.array([1.0, 0.0]), np.array([0.0, 1.0])
    unsure = np.array([0.5, 0.5])
    members = np.array([[one, unsure, one], [one, unsure, other]])
    np.testing.assert_allclose(selection.disagreements(members), [0, 0, np.log(2)], atol=1e-9)
    assert selection.committee(members, 1).tolist() == [2]


def test_coreset_takes_the_furthest_image_each_time():
    features, cloud = clouds()
    chosen = selection.coreset(features, np.array([0]), 3)
    assert chosen[0] == len(features) - 1
    assert sorted(cloud[chosen].tolist()) == [1, 2, 3]
    equal = selection.coreset(np.zeros((4, 2)), np.array([], int), 4)
    assert sorted(equal.tolist()) == [0, 1, 2, 3]


def test_typical_takes_the_middle_of_each_cluster_the_largest_first():
    features, cloud = clouds()
    features, cloud = features[:-1], cloud[:-1]
    chosen = selection.typical(features, np.array([], int), 3)
    assert cloud[chosen].tolist() == [0, 1, 2]
    assert np.linalg.norm(features[chosen] - CENTERS, axis=1).max() < 1


def test_typical_passes_over_clusters_that_have_a_label():
    features, cloud = clouds()
    features, cloud = features[:-1], cloud[:-1]
    labeled = np.array([5, 70])  # in clusters 0 and 1
    chosen = selection.typical(features, labeled, 1)
    assert cloud[chosen].tolist() == [2]
    everything = selection.typical(features, labeled, len(features) - 2)
    assert sorted([*everything, *labeled]) == list(range(len(features)))


def test_typical_of_equal_images():
    assert sorted(selection.typical(np.zeros((5, 3)), np.array([2]), 4)) == [0, 1, 3, 4]


def test_pixels_alone_give_features():
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (20, 4, 4, 1), np.uint8)
    assert selection.pixel_features(images, dimensions=5).shape == (20, 5)
    assert selection.pixel_features(images[:3]).shape[0] == 3


@pytest.mark.parametrize("many", [False, True])
def test_more_clusters_than_the_exact_algorithm_takes(many):
    features, _ = clouds()
    budget = 60 if many else 10
    chosen = selection.typical(features, np.array([], int), budget)
    assert len(set(chosen.tolist())) == budget
