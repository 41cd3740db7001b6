"""Tests classifiers on clusters whose classes are known."""

import numpy as np
import pytest

from ssljax.probe import classifiers

CLASSES, WIDTH = 4, 24


def clusters(seed, count, spread=0.4):
    """Returns features around one direction per class, and classes."""
    centers = np.random.RandomState(0).normal(size=(CLASSES, WIDTH))
    random = np.random.RandomState(seed)
    labels = random.randint(0, CLASSES, count)
    features = centers[labels] + random.normal(scale=spread, size=(count, WIDTH))
    return features.astype(np.float32), labels


def one_each(labels, number):
    return np.concatenate([np.flatnonzero(labels == c)[:number] for c in range(CLASSES)])


@pytest.mark.parametrize("number", [1, 5])
def test_each_finds_clusters_from_a_few_labels(number):
    pool, labels = clusters(1, 200)
    asked, truth = clusters(2, 100)
    drawn = one_each(labels, number)
    standard = classifiers.Standard(pool)
    found = (
        classifiers.linear(standard(pool[drawn]), labels[drawn], standard(asked)),
        classifiers.neighbours(pool[drawn], labels[drawn], asked),
        classifiers.Propagation(pool, asked)(drawn, labels[drawn], CLASSES),
    )
    for predicted in found:
        assert np.mean(predicted == truth) > 0.95


def test_labels_spread_along_images_without_labels():
    """Two half circles with one label at an end of each; the images in between connect the rest."""
    angle = np.linspace(0, np.pi, 400)
    arcs = np.concatenate([
        np.stack([np.cos(angle), np.sin(angle), 0 * angle, 0 * angle], axis=1),
        np.stack([0 * angle, 0 * angle, np.cos(angle), np.sin(angle)], axis=1),
    ]).astype(np.float32)  # fmt: skip
    labels = np.repeat([0, 1], 400)
    # A misleading third coordinate: the far ends of both are alike.
    bias = np.concatenate([angle, angle])[:, None] / np.pi
    features = np.concatenate([arcs, 2 * bias.astype(np.float32)], axis=1)
    drawn = np.array([0, 400])
    spread = classifiers.Propagation(features, features)(drawn, labels[drawn], 2)
    assert np.mean(spread == labels) > 0.99


def test_a_pool_that_is_too_large_is_thinned_out(monkeypatch):
    monkeypatch.setattr(classifiers, "_MOST", 150)
    pool, labels = clusters(1, 400)
    asked, truth = clusters(2, 50)
    drawn = one_each(labels, 2)
    propagation = classifiers.Propagation(pool, asked)
    assert propagation._graph.shape == (150, 150)
    assert np.mean(propagation(drawn, labels[drawn], CLASSES) == truth) > 0.95


def test_the_strength_of_the_regularisation_is_chosen_by_cross_validation(monkeypatch):
    """For noise it is the strongest; the loss on held-out images decides."""
    import sklearn.linear_model

    chosen = []

    class Watched(sklearn.linear_model.LogisticRegression):
        def fit(self, *args, **options):
            chosen.append(self.C)
            return super().fit(*args, **options)

    monkeypatch.setattr(sklearn.linear_model, "LogisticRegression", Watched)
    random = np.random.RandomState(0)
    noise, labels = random.normal(size=(300, WIDTH)), random.randint(0, 2, 300)
    classifiers.linear(noise, labels, noise)
    assert chosen[-1] <= 1e-2
    assert len(chosen) == 6 * 5 + 1
    clear = noise + 4 * labels[:, None]
    classifiers.linear(clear, labels, clear)
    assert chosen[-1] > 1e-2
