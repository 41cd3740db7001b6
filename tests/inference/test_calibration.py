import numpy as np
import pytest
from scipy.stats import binom

from ssljax import reliability
from ssljax.errors import UsageError
from ssljax.inference import calibration


def drawn(count, temperature, seed=0):
    """Returns logits of a model that is overconfident by a factor, and true labels."""
    random = np.random.default_rng(seed)
    logits = random.normal(size=(count, 4)) * 2
    p = calibration.softmax(logits)
    labels = (p.cumsum(axis=1) < random.random((count, 1))).sum(axis=1).clip(max=3)
    return logits * temperature, labels


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_temperature_that_was_put_in_is_found(temperature):
    logits, labels = drawn(20_000, temperature)
    assert calibration.fit_temperature(logits, labels) == pytest.approx(temperature, rel=0.05)


def test_a_temperature_that_chance_can_explain_is_1():
    found = [calibration.fit_temperature(*drawn(200, 1.0, seed)) for seed in range(40)]
    assert sum(x != 1 for x in found) <= 6  # 2 on average
    assert calibration.fit_temperature(*drawn(200, 3.0)) > 2


def test_images_that_are_all_right_do_not_make_a_model_certain():
    labels = np.arange(50) % 4
    logits = 3.0 * np.eye(4)[labels]
    assert 0.3 < calibration.fit_temperature(logits, labels) < 1


def test_calibration_lowers_the_error_on_other_images():
    logits, labels = drawn(4_000, 3.0)
    t = calibration.fit_temperature(logits[:2000], labels[:2000])
    right = (logits.argmax(axis=-1) == labels)[2000:]
    diagrams = (
        reliability.diagram(calibration.softmax(logits[2000:], x).max(axis=-1), right)
        for x in (1.0, t)
    )
    before, after = map(reliability.expected_calibration_error, diagrams)
    assert before > 0.1
    assert after < 0.05


def test_the_error_bound_is_the_one_of_clopper_and_pearson():
    bound = calibration.error_bound(3, 50, delta=0.05)
    assert binom.cdf(3, 50, bound) == pytest.approx(0.05)
    assert calibration.error_bound(5, 5, delta=0.05) == 1


def test_what_is_trusted_has_at_most_the_error_that_is_asked_for():
    """In at least 95 % of 200 samples of 300 images, with known true error."""
    above, none = 0, 0
    for seed in range(200):
        random = np.random.default_rng(seed)
        confidence = random.uniform(0.5, 1, 300)
        right = random.random(300) < confidence  # calibrated: the error above c is (1 - c) / 2
        found = calibration.trusted(confidence, right, max_error=0.2)
        if found is None:
            none += 1
            continue
        above += (1 - found.confidence) / 2 > 0.2
        assert found.error_bound <= 0.2
    assert above <= 10
    assert none < 150


def test_equal_confidences_are_trusted_together_or_not_at_all():
    right = np.arange(200) < 190
    assert calibration.trusted(np.ones(200), right, max_error=0.1).coverage == 1
    assert calibration.trusted(np.ones(200), right, max_error=0.05) is None
    assert calibration.trusted(np.ones(0), right[:0], max_error=0.05) is None


@pytest.mark.parametrize("value", [0, 1, -0.1, 1.5, float("nan")])
def test_an_error_outside_0_and_1_is_refused(value):
    with pytest.raises(UsageError, match="max_error is .*; allowed: above 0 and below 1"):
        calibration.trusted(np.ones(3), np.ones(3, bool), max_error=value)


def test_calibration_without_images_is_refused():
    with pytest.raises(UsageError, match="needs labelled images"):
        calibration.fit_temperature(np.zeros((0, 3)), np.zeros(0, int))
