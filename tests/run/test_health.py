import math

import pytest

from ssljax.run import health

HEALTHY = {
    "loss/total": 1.0,
    "guess/mask_rate": 0.5,
    "guess/class_entropy": 2.2,
    "test/class_entropy_raw": 2.2,
}


def problems(*rows, finite=True):
    rows = [{"step": i + 1} | HEALTHY | row for i, row in enumerate(rows)]
    return health.problems(rows, finite=finite, label_entropy=math.log(10))


def between(**values):
    row = {k: v for k, v in HEALTHY.items() if not k.startswith("test/")} | values
    return row


def test_a_healthy_run_has_none():
    assert problems({}, {}) == {}


@pytest.mark.parametrize("row", [{"loss/total": None}, {}])
def test_numbers_that_are_not_finite(row):
    found = problems(row, finite=bool(row))
    assert list(found) == ["non_finite"]
    assert "at step 1. Likely cause: a learning rate that is too high" in found["non_finite"]


@pytest.mark.parametrize(("rate", "text"), [(0.0, "no guess has"), (1.0, "every guess has")])
def test_a_mask_rate_is_stuck_when_it_was_so_since_the_evaluation_before(rate, text):
    rows = [{"step": 1} | HEALTHY, {"step": 2} | between(), {"step": 3} | HEALTHY]
    rows[1]["guess/mask_rate"] = rows[2]["guess/mask_rate"] = rate
    found = health.problems(rows, finite=True, label_entropy=2.3)
    assert list(found) == ["mask_rate"]
    assert text in found["mask_rate"]
    assert "config.method_args.threshold" in found["mask_rate"]
    rows[1]["guess/mask_rate"] = 0.01
    assert health.problems(rows, finite=True, label_entropy=2.3) == {}
    rows[1]["guess/mask_rate"], rows[0]["guess/mask_rate"] = rate, 1 - rate  # an earlier evaluation
    assert list(health.problems(rows, finite=True, label_entropy=2.3)) == ["mask_rate"]


def test_one_predicted_class_is_a_collapse():
    mostly = -(0.995 * math.log(0.995) + 0.005 * math.log(0.005))
    found = problems({"test/class_entropy_raw": mostly})
    assert list(found) == ["collapse"]
    assert "nearly all images are assigned to one class at step 1" in found["collapse"]
    assert problems({"test/class_entropy_raw": 0.5}) == {}


def test_the_predictions_for_test_images_come_before_the_guesses():
    assert problems({"guess/class_entropy": 0.0}) == {}
    row = {"step": 1} | between(**{"guess/class_entropy": 0.0})
    assert list(health.problems([row], finite=True, label_entropy=2.3)) == ["collapse"]
