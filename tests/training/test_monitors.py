"""Tests the monitors of guessed labels."""

import jax.numpy as jnp
import numpy as np

from ssljax.methods.method import Aux
from ssljax.training.monitors import class_monitors

# Three classes; the last image's label is unknown.
GUESS = jnp.array([[0.9, 0.1, 0.0], [0.6, 0.4, 0.0], [0.2, 0.8, 0.0], [0.7, 0.3, 0.0]])
LABELS = jnp.array([0, 1, 1, -1])
MASK = jnp.array([1.0, 0.0, 1.0, 1.0])


def test_each_class_has_the_mask_rate_of_its_guesses_and_the_accuracy_of_its_images():
    found = class_monitors(Aux({}, (), {}, GUESS, MASK), LABELS)
    rate, accuracy = found["guess/class_mask_rate"], found["guess/class_accuracy"]
    np.testing.assert_array_equal(rate.total, [2, 1, 0])
    np.testing.assert_array_equal(rate.count, [3, 1, 0])
    np.testing.assert_array_equal(accuracy.total, [1, 1, 0])
    np.testing.assert_array_equal(accuracy.count, [1, 2, 0])


def test_what_a_method_does_not_guess_or_mask_is_not_watched():
    assert class_monitors(Aux({}, (), {}), LABELS) == {}
    assert class_monitors(Aux({}, (), {}, GUESS, MASK), None) == {}
    assert set(class_monitors(Aux({}, (), {}, GUESS), LABELS)) == {"guess/class_accuracy"}
