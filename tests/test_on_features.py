"""Tests that training on precomputed features equals training the last layer."""

import numpy as np
import pytest

from helpers.steps import largest_difference, run_steps
from helpers.tiny import tiny_config, tiny_vit
from ssljax import recipe, trained
from ssljax.on_features import OnFeatures
from ssljax.run import loop


def config(tmp_path, method="fixmatch"):
    made = tiny_vit(method)
    made.trainable = "head"
    made.augment.weak = made.augment.strong = "none"
    made.feature_cache = str(tmp_path / "features")
    return made


def test_steps_are_those_on_images(tmp_path):
    once = recipe.build(config(tmp_path), max_devices=1)
    each = recipe.build(config(tmp_path), max_devices=1, once=False)
    assert isinstance(once, OnFeatures)
    assert not isinstance(each, OnFeatures)
    once.begin(once.init_state())
    (found, sums), (expected, expected_sums) = (run_steps(x, 3) for x in (once, each))
    assert largest_difference(found.params, expected.params) < 1e-5
    np.testing.assert_allclose(
        sums["loss/total"].compute(), expected_sums["loss/total"].compute(), rtol=1e-5
    )
    assert once.data_bytes == once.data().images.nbytes + sum(x.nbytes for x in once.data()[1:])


@pytest.mark.slow
@pytest.mark.parametrize("method", ["mixmatch", "remixmatch", "vat", "ict", "mean_teacher"])
def test_methods_that_mix_or_change_images_do_so_with_features(method, tmp_path):
    made = config(tmp_path, method)
    after, sums = run_steps(recipe.build(made, max_devices=1), 2)
    assert np.isfinite(sums["loss/total"].compute())
    assert np.isfinite(after.params["head"]["kernel"]).all()


def test_a_run_is_an_ordinary_one(tmp_path, caplog, monkeypatch):
    caplog.set_level("INFO", "ssljax")
    made = config(tmp_path)
    made.num_steps = 4
    experiment = recipe.build(made, max_devices=1)
    found = loop.train(experiment, tmp_path / "run")
    model = trained.load(tmp_path / "run")
    images, labels = experiment.dataset.test_images, experiment.dataset.test_labels
    right = np.argmax(model.predict_proba(images), axis=-1) == labels
    assert np.mean(right) == pytest.approx(found["last"]["test/accuracy_ema"], abs=1e-6)
    # The next generation learns what the run predicts, from the features that are known.
    monkeypatch.setattr(trained.Trained, "outputs", None)
    probabilities = experiment.probabilities(model, images)
    monkeypatch.undo()
    np.testing.assert_allclose(probabilities, model.predict_proba(images), atol=1e-6)
    made.num_steps = 6
    loop.train(recipe.build(made, max_devices=1, started=True), tmp_path / "run")
    assert trained.load(tmp_path / "run").step == 6


@pytest.mark.parametrize(
    ("knob", "value"),
    [("trainable", "all"), ("augment.weak", "weak_digits"), ("augment.strong", "strong_digits")],
)
def test_where_a_view_changes_images_they_are_computed_at_each_step(
    knob, value, tmp_path, untraced
):
    made = config(tmp_path)
    made.update_from_flattened_dict({knob: value})
    assert not isinstance(recipe.build(made, max_devices=1), OnFeatures)


def test_any_network_of_ours_has_features(tmp_path):
    made = tiny_config("supervised")
    made.trainable = "head"
    made.augment.weak = "none"
    made.feature_cache = str(tmp_path)
    experiment = recipe.build(made, max_devices=1)
    after, _ = run_steps(experiment, 2)
    assert {*after.params} == {"Dense_0"}
    assert experiment.data().images.shape[-1] == after.params["Dense_0"]["kernel"].shape[0]
