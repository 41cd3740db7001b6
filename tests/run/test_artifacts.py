"""Tests the files that a run writes for its report."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from PIL import Image

from helpers.processes import rows_of
from helpers.tiny import build, tiny_config
from ssljax.augment import contact_sheet
from ssljax.errors import RunError
from ssljax.report import report
from ssljax.report.runs import read
from ssljax.run import artifacts, evaluate, loop, metrics
from ssljax.training import parallel


@pytest.mark.slow
def test_a_real_run_can_be_reported(config, tmp_path):
    loop.train(build(config), tmp_path / "run")
    run = read(tmp_path / "run", "run")
    assert run.status == "finished"
    assert run.notes == ()
    assert Image.open(tmp_path / "run" / "curve.png").size == (720, 480)
    assert run.starts[0]["versions"]["jax"] == jax.__version__
    assert "cpu" in run.starts[0]["devices"]
    width, height = Image.open(tmp_path / "run" / "labelled.png").size
    assert (height, (width - 4) // 32) == (10 * 32, 4)  # one row per class, with 4 images each

    says = run.predictions
    assert (says.step, says.part, len(says.labels)) == (12, "test", 360)
    accuracy = np.mean(says.predicted == says.labels)
    assert accuracy == pytest.approx(run.rows[-1]["test/accuracy_ema"], abs=1e-6)
    assert np.all(np.diff(says.confidence[says.mistakes]) <= 0)
    wrong = np.flatnonzero(says.predicted != says.labels)
    assert len(says.mistakes) == min(24, len(wrong))
    assert set(says.mistakes) <= set(wrong)
    assert says.confidence[says.mistakes].min() >= np.sort(says.confidence[wrong])[-24:].min()
    dataset = build(config).dataset
    np.testing.assert_array_equal(says.mistake_images, dataset.test_images[says.mistakes])
    assert says.mistake_names == tuple(map(str, says.mistakes))
    assert "note:" not in report.write([tmp_path], tmp_path)


def write_predictions(experiment, state, workdir):
    _, predictions = evaluate.evaluate_state(experiment, experiment.evaluator(), state)
    artifacts.write_predictions(experiment, predictions, workdir, step=0)


def test_batches_of_any_size_give_the_same_predictions(config, tmp_path):
    experiment = build(config)
    state = parallel.replicate(experiment.init_state(), experiment.devices)
    found = []
    for size in (512, 50):
        experiment = dataclasses.replace(experiment, eval_batch_size=size)
        write_predictions(experiment, state, tmp_path)
        found.append(dict(np.load(tmp_path / "predictions.npz")))
    for name in ("labels", "predicted", "mistakes", "mistake_images"):
        np.testing.assert_array_equal(found[0][name], found[1][name])
    np.testing.assert_allclose(found[0]["confidence"], found[1]["confidence"], rtol=1e-5)


def test_without_test_images_the_validation_images_are_predicted(config, tmp_path):
    experiment = build(config)
    none = experiment.dataset._replace(
        test_images=experiment.dataset.test_images[:0],
        test_labels=experiment.dataset.test_labels[:0],
    )
    experiment = dataclasses.replace(experiment, dataset=none)
    state = parallel.replicate(experiment.init_state(), experiment.devices)
    write_predictions(experiment, state, tmp_path)
    with np.load(tmp_path / "predictions.npz") as says:
        assert says["part"] == "validation"
        np.testing.assert_array_equal(says["labels"], none.labels[experiment.split.valid])
        numbers = experiment.split.valid[says["mistakes"]]
        np.testing.assert_array_equal(says["mistake_names"], numbers.astype(str))
    # Files have names; after a damaged image, the assignment is unknown.
    named = none._replace(files=tuple(f"caf\udce9/{i}.png" for i in range(len(none.images))))
    experiment = dataclasses.replace(experiment, dataset=named)
    _, says = evaluate.evaluate_state(experiment, experiment.evaluator(), state)
    names = artifacts._mistake_names(experiment, says)
    assert names == [f"caf\udce9/{i}.png" for i in numbers]
    damaged = says._replace(labels=says.labels[1:], mistakes=says.mistakes[:1])
    assert artifacts._mistake_names(experiment, damaged) == [""]


def test_a_failure_is_noted_until_the_run_goes_on(tmp_path):
    with pytest.raises(RunError), artifacts.noting_failure(tmp_path):
        raise RunError("the loss is not finite at step 8")
    assert (tmp_path / "failure.txt").read_text() == "RunError: the loss is not finite at step 8\n"
    with artifacts.noting_failure(tmp_path):
        assert not (tmp_path / "failure.txt").exists()


def test_a_failure_with_names_that_are_no_text_is_noted(tmp_path):
    with pytest.raises(ValueError, match="no image"), artifacts.noting_failure(tmp_path):
        raise ValueError("caf\udce9\ud800: no image")
    text = (tmp_path / "failure.txt").read_text("utf-8")
    assert text == "ValueError: caf\\udce9\\ud800: no image\n"


def test_an_interrupted_run_has_not_failed(tmp_path):
    with pytest.raises(artifacts.Interrupted), artifacts.noting_failure(tmp_path):
        raise artifacts.Interrupted(15, "SIGTERM: saved after step 7")
    assert not (tmp_path / "failure.txt").exists()


def test_a_start_elsewhere_is_added_and_one_alike_is_not(tmp_path, monkeypatch):
    devices = jax.devices()[:1]
    artifacts._note_start(tmp_path, 0, devices)
    artifacts._note_start(tmp_path, 4, devices)
    monkeypatch.setattr(artifacts, "version", lambda package: "9.9")
    artifacts._note_start(tmp_path, 8, devices)
    starts = json.loads((tmp_path / "environment.json").read_text())["starts"]
    assert [start["step"] for start in starts] == [0, 8]
    assert starts[1]["versions"]["flax"] == "9.9"


def test_tensorboard_shows_the_views_once(tmp_path, monkeypatch):
    config = tiny_config("supervised")
    shown = []

    class Writer:
        def write_scalars(self, step, scalars):
            del step, scalars

        def write_images(self, step, images):
            shown.append((step, images))

        def flush(self):
            pass

        def close(self):
            pass

    monkeypatch.setattr(metrics, "_tensorboard", lambda workdir: Writer())
    config.num_steps = 4
    experiment = build(config)
    loop.train(experiment, tmp_path)
    config.num_steps = 8
    loop.train(build(config), tmp_path)
    ((step, images),) = shown
    assert step == 0
    assert images["views"].shape == (1, 16 + 8 * (48 + 4), 96 + 10 * (48 + 4), 3)
    expected = contact_sheet.draw(
        jax.random.key(experiment.seed),
        experiment.dataset.images[experiment.split.labeled[:8]],
        experiment.augmentation,
        magnitude_grid=False,
    )
    np.testing.assert_array_equal(images["views"][0], expected)
    assert rows_of(tmp_path)[-1]["step"] == 8


def test_a_damaged_list_of_starts_is_kept_and_told_of(tmp_path, capsys):
    devices = jax.devices()[:1]
    artifacts._note_start(tmp_path, 0, devices)
    path = tmp_path / "environment.json"
    damaged = path.read_bytes().replace(b"cores", b"corfs")
    path.write_bytes(damaged)
    artifacts._note_start(tmp_path, 4, devices)
    assert "environment.json has changed since it was written" in capsys.readouterr().out
    assert (tmp_path / "environment.json.damaged").read_bytes() == damaged
    assert [start["step"] for start in json.loads(path.read_text())["starts"]] == [4]


@pytest.mark.parametrize("starts", ["x", ["x"], [None], {}])
def test_a_list_of_something_else_than_starts_is_gone_on_from(starts, tmp_path):
    path = tmp_path / "environment.json"  # from an older version, without checksums
    path.write_text(json.dumps({"starts": starts}))
    artifacts._note_start(tmp_path, 4, jax.devices()[:1])
    assert json.loads(path.read_text())["starts"][-1]["step"] == 4
