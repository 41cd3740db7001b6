"""Tests self-training: what a round learns, its targets, and rounds as runs."""

import json
import shutil

import jax
import numpy as np
import pytest

from helpers import golden
from helpers.tiny import tiny_config
from ssljax import generations, recipe, trained
from ssljax.errors import UsageError
from ssljax.methods.method import Batch, Sizes
from ssljax.methods.self_training import _make_targets, self_training
from ssljax.run import loop

LABELS = np.array([0, 2])
TARGETS = np.array([[0.5, 0.25, 0.25], [0, 0, 0], [0, 1, 0], [0.125, 0.125, 0.75]])
INDEX = np.array([3, 1, 0, 3])


def test_a_later_round_learns_the_labels_and_the_predictions():
    method = self_training(
        rounds=2, soft=True, unlabeled_weight=0.5, labeled_weight=2.0, generation=1
    )
    batch = Batch(golden.images(1, 2), LABELS, (golden.images(2, 4),), unlabeled_index=INDEX)

    def calculate(params, constant, ema):
        logits, stats = golden.forward(params, np.concatenate([batch.labeled, *batch.views]))
        xe = golden.cross_entropy(logits[:2], np.eye(3)[LABELS]).mean()
        xeu = golden.cross_entropy(logits[2:], TARGETS[INDEX]).mean()
        guess = TARGETS[INDEX] + np.array([0, 1 / 3, 0, 0])[:, None]
        logs = {"loss/xe": xe, "loss/xeu": xeu}
        return golden.Expected(2 * xe + 0.5 * xeu, logs, stats, guess, {"targets": TARGETS})

    golden.check(method, batch, (), calculate, state={"targets": TARGETS})


def test_the_first_round_learns_the_labels_alone():
    method = self_training(rounds=2)
    batch = Batch(golden.images(1, 2), LABELS, ())

    def calculate(params, constant, ema):
        logits, stats = golden.forward(params, batch.labeled)
        xe = golden.cross_entropy(logits, np.eye(3)[LABELS]).mean()
        return golden.Expected(xe, {"loss/xe": xe}, stats, None)

    golden.check(method, batch, (), calculate)
    assert method.views == ()
    assert method.init(Sizes(3, np.ones(3), 4)) == ()


# Probabilities of three runs for three images of three classes.
PROBABILITIES = np.array([
    [[0.9, 0.1, 0.0], [0.4, 0.6, 0.0], [0.34, 0.33, 0.33]],
    [[0.8, 0.1, 0.1], [0.4, 0.6, 0.0], [0.33, 0.34, 0.33]],
    [[0.1, 0.9, 0.0], [1.0, 0.0, 0.0], [0.30, 0.30, 0.40]],
])  # fmt: skip


def test_hard_targets_are_the_votes_and_the_mean_parts_ties():
    found = _make_targets(PROBABILITIES, soft=False, threshold=0.0, temperature=1.0)
    np.testing.assert_array_equal(found, [[1, 0, 0], [0, 1, 0], [0, 0, 1]])
    assert found.dtype == np.float32
    # The mean of the third image is 0.353 for its likeliest class.
    found = _make_targets(PROBABILITIES, soft=False, threshold=0.5, temperature=1.0)
    np.testing.assert_array_equal(found, [[1, 0, 0], [0, 1, 0], [0, 0, 0]])


def test_soft_targets_are_the_mean_sharpened():
    mean = PROBABILITIES.mean(axis=0)
    found = _make_targets(PROBABILITIES, soft=True, threshold=0.0, temperature=1.0)
    np.testing.assert_allclose(found, mean, rtol=1e-6)
    found = _make_targets(PROBABILITIES, soft=True, threshold=0.0, temperature=0.5)
    np.testing.assert_allclose(found, mean**2 / (mean**2).sum(axis=1, keepdims=True), rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rounds": 0}, "rounds is 0; allowed: from 1 to 1000"),
        ({"threshold": 2}, "threshold is 2; allowed: from 0 to 1"),
        ({"view": "none"}, "view is 'none'; allowed: weak, strong"),
        ({"rounds": 2, "generation": 2}, "generation is 2; allowed: from 0 to 1"),
    ],
)
def test_arguments_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        self_training(**options)


def config(**method_args):
    made = tiny_config("self_training")
    made.num_steps = made.eval_every = made.log_every = 4
    made.method_args = {"rounds": 2, **method_args}
    return made


@pytest.fixture(scope="module")
def rounds(tmp_path_factory):
    """Two rounds, the first with two runs."""
    workdir = tmp_path_factory.mktemp("rounds")
    experiment = recipe.build(config(runs=2), max_devices=1)
    return workdir, generations.train(experiment, str(workdir))


@pytest.mark.slow  # test_generations.py has quick ones of the same chain
def test_each_round_is_a_run_and_the_runs_of_one_vote(rounds):
    workdir, (last, run, results) = rounds
    assert run == workdir / "generation=1"
    assert results["step"] == 4
    first = [workdir / "generation=0" / f"run={i}" for i in (0, 1)]
    seeds = [json.loads((x / "config.json").read_text())["seed"] for x in (*first, run)]
    assert seeds == [0, 1, 0]
    targets = np.load(workdir / "generation=1.npz")["targets"]
    images = last.dataset.images[last.split.unlabeled]
    each = np.stack([trained.load(x).predict_proba(images) for x in first])
    expected = _make_targets(each, soft=False, threshold=0.0, temperature=1.0)
    labeled = np.isin(last.split.unlabeled, last.split.labeled)
    np.testing.assert_array_equal(targets[~labeled], expected[~labeled])
    # Targets of labelled images are their labels; the labels of the others are unused.
    truth = np.eye(10)[last.dataset.labels[last.split.unlabeled]]
    np.testing.assert_array_equal(targets[labeled], truth[labeled])
    assert labeled.sum() == 35  # the others are for validation
    # The targets are part of the run, so that it resumes without the file.
    np.testing.assert_array_equal(trained.load(run).state["method"]["targets"], targets)


@pytest.mark.slow
def test_what_is_finished_is_taken_up(rounds, monkeypatch):
    workdir, before = rounds
    steps, run = [], loop.run

    def watch(program, saved, empty):
        steps.append(int(saved["state"].step))
        return run(program, saved, empty)

    monkeypatch.setattr(loop, "run", watch)
    after = generations.train(recipe.build(config(runs=2), max_devices=1), str(workdir))
    assert steps == [4, 4, 4]
    assert after.results == before.results


@pytest.mark.slow
@pytest.mark.parametrize(
    "missing",
    [
        ("generation=1", "generation=1.npz", "generation=0/run=1"),
        ("generation=1/checkpoints", "generation=1/results.json"),
    ],
)
def test_a_chain_that_was_cut_goes_on_to_the_same_end(rounds, missing, tmp_path):
    workdir, before = rounds
    shutil.copytree(workdir, tmp_path / "cut")
    for name in missing:
        path = tmp_path / "cut" / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    after = generations.train(recipe.build(config(runs=2), max_devices=1), str(tmp_path / "cut"))
    found, expected = (trained.load(x).state for x in (after.workdir, before.workdir))
    for part in ("params", "ema", "method"):
        jax.tree.map(np.testing.assert_array_equal, found[part], expected[part])


def test_a_remote_directory_holds_no_rounds():
    experiment = recipe.build(config(), max_devices=1)
    with pytest.raises(UsageError, match="'self_training' trains in generations; allowed with"):
        generations.train(experiment, "memory://somewhere")
