import numpy as np
import pytest

from ssljax import reliability


def test_a_calibration_error_by_hand():
    confidence, right = np.array([0.9, 0.9, 0.6, 0.6]), np.array([True, False, True, True])
    # Two bins hold 2 images each: |0.5 - 0.9| and |1 - 0.6|.
    found = reliability.diagram(confidence, right)
    assert reliability.expected_calibration_error(found) == pytest.approx(0.4)
    np.testing.assert_allclose(found.left, [8 / 15, 13 / 15])
    one = reliability.diagram(confidence, right, bins=2)
    np.testing.assert_allclose(one, [[0.5], [0.75], [0.75], [4]])


def test_confidences_of_0_and_1_have_bins():
    found = reliability.diagram(np.array([0.0, 1.0]), np.array([False, True]))
    np.testing.assert_allclose(found, [[0, 14 / 15], [0, 1], [0, 1], [1, 1]])


def test_diagrams_together_are_the_diagram_of_all_images():
    random = np.random.default_rng(0)
    confidence = random.uniform(0.3, 1, 90)
    right = random.random(90) < confidence
    parts = [reliability.diagram(confidence[i::3][:20], right[i::3][:20]) for i in range(3)]
    expected = reliability.diagram(confidence[:60], right[:60])
    for found, values in zip(reliability.together(parts), expected, strict=True):
        np.testing.assert_allclose(found, values, atol=1e-6)


def test_risk_against_coverage_by_hand():
    coverage, risk = reliability.risk_coverage(
        np.array([0.5, 0.9, 0.7]), np.array([False, True, True])
    )
    np.testing.assert_allclose(coverage, [1 / 3, 2 / 3, 1])
    np.testing.assert_allclose(risk, [0, 0, 1 / 3])
