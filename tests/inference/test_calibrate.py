import dataclasses

import numpy as np
import pytest

from benchmarks import calibration as benchmark
from helpers.tiny import build, tiny_config
from ssljax import reliability
from ssljax import trained as trained_models
from ssljax.errors import UsageError
from ssljax.inference import calibrate, calibration
from ssljax.report.runs import read
from ssljax.run import loop


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """An experiment with 100 validation images, and its run directory."""
    config = tiny_config()
    config.unlabeled = "strict"
    experiment = build(config)
    workdir = tmp_path_factory.mktemp("run") / "run"
    loop.train(experiment, workdir)
    return experiment, workdir


def test_the_temperature_is_of_validation_images_and_is_served(finished):
    experiment, workdir = finished
    before = trained_models.load(workdir)
    assert before.temperature == 1
    calibrate.store(before, experiment.dataset, experiment.split)
    trained = trained_models.load(workdir)
    found = trained.calibration
    assert (found["on"], found["images"]) == ("validation", 100)
    assert len(found["confidence"]) == len(found["right"]) == 100
    images = experiment.dataset.images[experiment.split.valid]
    labels = experiment.dataset.labels[experiment.split.valid]
    served = trained.serve()(trained.variables, images)
    logits = np.asarray(served["logits"])
    expected = calibration.fit_temperature(logits, labels)
    assert trained.temperature == pytest.approx(expected, rel=1e-2)
    np.testing.assert_allclose(
        served["probabilities"], calibration.softmax(logits, trained.temperature), atol=1e-5
    )
    assert np.mean(found["right"]) == np.mean(logits.argmax(axis=1) == labels)
    # The report needs only this file: its diagrams are of these images and calibration errors.
    run = read(workdir, "run")
    assert run.notes == ()
    report = run.calibration
    before, after = report.reliability
    direct = calibration.softmax(logits).max(axis=-1)
    expected = reliability.diagram(direct, np.array(found["right"]))
    np.testing.assert_allclose(before, expected, atol=1e-5)
    for diagram, error in ((before, report.ece_before), (after, report.ece_after)):
        assert diagram.images.sum() == 100
        assert reliability.expected_calibration_error(diagram) == pytest.approx(error, abs=1e-5)
    # The file does not apply to other weights.
    assert trained_models.load(workdir, weights="raw").temperature == 1


def test_with_few_validation_images_the_labelled_ones_help_and_only_lower_confidence(finished):
    experiment, workdir = finished
    split = experiment.split._replace(valid=experiment.split.valid[:10])
    found = calibrate.measure(trained_models.load(workdir), experiment.dataset, split)
    assert (found["on"], found["images"]) == ("labelled", 50)
    assert found["temperature"] >= 1
    assert "confidence" not in found


def test_a_validation_image_that_was_trained_on_with_its_label_does_not_count(finished):
    experiment, workdir = finished
    split = experiment.split
    overlapping = split._replace(valid=np.concatenate([split.valid, split.labeled]))
    found = calibrate.measure(trained_models.load(workdir), experiment.dataset, overlapping)
    assert found["images"] == 100


def test_trust_needs_validation_images_and_accuracy(finished):
    trained = trained_models.load(finished[1])
    good = {"confidence": [0.9] * 100, "right": [True] * 99 + [False]}
    able = dataclasses.replace(trained, calibration=good)
    assert calibrate.trusted_confidence(able, 0.1).confidence == 0.9
    with pytest.raises(UsageError, match=r"max_error=0.01: no confidence guarantees it with 100"):
        calibrate.trusted_confidence(able, 0.01)
    with pytest.raises(UsageError, match=r"max_error=0.1 needs 50 validation images"):
        calibrate.trusted_confidence(dataclasses.replace(trained, calibration={}), 0.1)


@pytest.mark.slow
def test_temperature_and_trust_hold_on_images_that_the_run_has_never_seen(tmp_path):
    """Ten labelled sets of the digits: on average, and in at least nine of ten."""
    given = ["dataset=digits.{seed}@40-200", "unlabeled=strict"]
    rows = [
        benchmark.of_seed("fixmatch_digits", given, seed, tmp_path, 0.1) for seed in range(1, 11)
    ]
    mean = {name: np.mean([row[name] for row in rows]) for name in rows[0] if "_" in name}
    assert mean["loss_after"] < mean["loss_before"]
    assert mean["ece_after"] < mean["ece_before"]
    errors = [row["error"] for row in rows if row["error"] is not None]
    assert len(errors) >= 5  # otherwise nothing is guaranteed, and nothing tested
    assert sum(error > 0.1 for error in errors) <= 1
