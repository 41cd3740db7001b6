"""Tests training without the command line: `fit`, `train`, `load`, and a single step."""

import dataclasses
import logging
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import ssljax
from helpers.steps import run_steps
from helpers.tiny import build, tiny_config
from ssljax.data.datasets import digits
from ssljax.errors import UsageError

DATA = digits()
SMALL = {
    "model_args": {"filters": 4, "scales": 1},
    "num_steps": 4,
    "batch_size": 4,
    "uratio": 1,
    "cpu_devices": 1,
}


def few_labels(names=None):
    """Returns the digits' training images, and labels of four images per class."""
    known = np.full(len(DATA.labels), -1)
    for c in range(10):
        chosen = np.flatnonzero(DATA.labels == c)[:4]
        known[chosen] = c
    return known if names is None else [None if k < 0 else names[k] for k in known]


def test_fit_returns_labels_as_they_were_given(tmp_path):
    names = [f"digit {c}" for c in range(10)]
    trained = ssljax.fit(DATA.images, few_labels(names), workdir=tmp_path / "run", **SMALL)
    assert trained.step == 4
    assert trained.results["headline"] == {}  # there was no evaluation
    predicted = trained.predict(DATA.test_images[:300])
    assert set(predicted) <= set(names)
    probabilities = trained.predict_proba(DATA.test_images[:300])
    assert probabilities.shape == (300, 10)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
    assert [names[i] for i in probabilities.argmax(axis=1)] == predicted.tolist()
    again = ssljax.load(tmp_path / "run")
    np.testing.assert_array_equal(again.predict_proba(DATA.test_images[:300]), probabilities)


def test_fit_evaluates_on_test_images_and_keeps_the_type_of_labels(tmp_path):
    trained = ssljax.fit(
        DATA.images[..., 0], few_labels(), DATA.images[:20], method="supervised",
        test_images=DATA.test_images, test_labels=DATA.test_labels, workdir=tmp_path / "run",
        **SMALL,
    )  # fmt: skip
    predicted = trained.predict(DATA.test_images)
    assert predicted.dtype == np.int64
    accuracy = np.mean(predicted == DATA.test_labels)
    np.testing.assert_allclose(trained.results["last"]["test/accuracy_ema"], accuracy, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": DATA.images.astype(float)}, "images: float64 .* allowed: uint8"),
        ({"labels": [0, 1]}, "labels: 2 of them; allowed: 1437, one per image"),
        ({"labels": [-1] * 1437}, "labels: 0 different ones; allowed: from 2 classes up"),
        ({"unlabeled": np.zeros((2, 9, 8, 1), np.uint8)}, r"unlabeled: of size \[9, 8, 1\]"),
        ({"test_images": DATA.test_images}, "only one is given; allowed: both"),
        ({"num_step": 3}, "num_step=3: there is no such knob; the nearest is num_steps"),
        ({"batch_size": "many"}, "batch_size='many'"),
        ({"method_args": {"treshold": 0.5}}, "method_args.treshold does not exist; the nearest"),
        ({"method": "fixmatsch"}, "config.method 'fixmatsch' does not exist"),
    ],
)
def test_what_does_not_fit_is_named_in_one_line(change, message, tmp_path):
    given = {"images": DATA.images, "labels": few_labels(), "workdir": tmp_path / "run"} | SMALL
    with pytest.raises(UsageError, match=message) as caught:
        ssljax.fit(**given | change)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_train_resumes_and_can_be_quiet(tmp_path, capsys):
    logger = logging.getLogger("ssljax")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        config = tiny_config("supervised")
        config.num_steps = 4
        assert ssljax.train(config, tmp_path / "run").step == 4
        config.num_steps = 8
        assert ssljax.train(config, tmp_path / "run").step == 8
    finally:
        logger.setLevel(level)
    assert capsys.readouterr().out == ""


def test_a_single_step_is_a_plain_function_that_computes_what_a_run_does(config):
    experiment = build(config)
    state, data = experiment.init_state(), experiment.data()
    state, metrics, guesses = jax.jit(experiment.single_step(guesses=True))(state, data)
    assert guesses.probabilities.shape == (16, 10)
    confidence = np.mean(np.max(guesses.probabilities, axis=-1))
    np.testing.assert_allclose(float(metrics["guess/confidence"]), confidence, rtol=1e-5)
    assert 0 <= float(metrics["guess/class_entropy"]) <= np.log(10)
    expected, sums = run_steps(experiment, 1)
    for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        float(metrics["loss/total"]), sums["loss/total"].compute(), rtol=1e-5
    )


def test_importing_the_package_imports_nothing_else():
    program = "import sys, ssljax; assert not {'jax', 'numpy', 'absl'} & {*sys.modules}; ssljax.fit"
    program += "; assert 'sklearn' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], cwd=Path(__file__).parents[1], check=True)
    with pytest.raises(AttributeError, match="no attribute 'fitt'"):
        ssljax.fitt  # noqa: B018


@pytest.fixture
def old_run(tmp_path):
    """A MixMatch run of 40 steps, made before the package had its present structure."""
    shutil.unpack_archive(Path(__file__).parent / "helpers/old_run.zip", tmp_path / "old")
    return tmp_path / "old"


@pytest.mark.slow
def test_a_run_of_an_older_version_predicts_reports_and_goes_on(old_run, tmp_path, capsys):
    from ssljax import cli

    trained = ssljax.load(old_run)
    accuracy = np.mean(trained.predict(DATA.test_images) == DATA.test_labels.astype(str))
    assert f"{100 * accuracy:.2f}" == "14.17"  # the recorded output
    assert cli.main(["--mode=report", f"--workdir={old_run}", f"--output={tmp_path / 'out'}"]) == 0
    assert "mixmatch,digits,40,,1,85.9722," in (tmp_path / "out/report.csv").read_text()
    resumed = cli.main(
        [
            "--config=mixmatch_digits",
            "--config.model_args.filters=4",
            "--config.num_steps=44",
            "--config.log_every=4",
            "--config.eval_every=4",
            f"--workdir={old_run}",
        ]
    )
    output = capsys.readouterr().out
    assert resumed == 0, output
    assert "after step 40" in output
    assert ssljax.load(old_run).step == 44


def test_labels_that_cannot_be_sorted_keep_their_order():
    from ssljax.library import _classes

    assert _classes(["b", 1, "b", (2,)]) == ("b", 1, (2,))
    assert dataclasses.is_dataclass(ssljax.load.__globals__["Trained"])
