"""A method that trains in generations: a chain of runs that goes on wherever it was left."""

import json
import os
import signal

import numpy as np
import pytest

from helpers.processes import final_state
from helpers.tiny import tiny_config
from ssljax import generations, library, recipe
from ssljax.data import datasets
from ssljax.errors import Interrupted, UsageError
from ssljax.run import progress


def config_of(count=2):
    config = tiny_config("crest")
    config.method_args.generations = count
    config.dataset = "digits.1@40-100"
    config.num_steps = config.eval_every = config.log_every = 4
    return config


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("chain")
    return workdir, generations.train(recipe.build(config_of()), str(workdir))


def test_each_generation_is_a_run_with_more_labels(chain):
    workdir, (experiment, run, results) = chain
    assert run == workdir / "generation=1"
    assert results["step"] == 4
    first, second = (
        json.loads((workdir / f"generation={g}" / "split.json").read_text()) for g in range(2)
    )
    assert len(first["labeled"]) == 40
    assert second["labeled"][:40] == first["labeled"]
    assert second["unlabeled"] == first["unlabeled"]
    new = set(second["labeled"][40:])
    assert new == {int(image) for image in second["labels"]}
    assert new.isdisjoint(first["valid"] + first["labeled"])
    assert json.loads((workdir / "generation=1.json").read_text())["parent"] == first["hash"]
    assert sum(second["class_counts"]) == len(second["labeled"])
    # All images of the rarest class that the first one predicts, here the last: all are as many.
    assert 0 < len(new) <= 1337
    args = json.loads((run / "config.json").read_text())["method_args"]
    assert (args["generation"], args["class_prior"]) == (1, [4.0] * 10)
    # The labels are those of the model, and what it is not told stays its own.
    known, data = experiment.dataset.labels, datasets.digits()
    assert {data.class_names[known[i]] for i in new} == set(second["labels"].values())
    np.testing.assert_array_equal(experiment.dataset.test_labels, data.test_labels)


def test_later_generations_begin_with_fresh_weights(chain):
    workdir, _ = chain
    (_, first), (_, second) = (final_state(workdir / f"generation={g}") for g in range(2))
    assert first["state"]["step"] == second["state"]["step"] == 4
    experiment = recipe.build(config_of())
    start = experiment.init_state().params["Dense_0"]["kernel"]
    for tree in (first, second):
        moved = np.abs(tree["state"]["params"]["Dense_0"]["kernel"] - start).max()
        assert 0 < moved < 0.5


@pytest.mark.slow
def test_an_interrupted_chain_goes_on_bit_for_bit(chain, tmp_path, monkeypatch):
    whole, _ = chain
    advance = progress.ProgressBar.advance
    begun = []

    def advance_and_interrupt(self, steps):
        advance(self, steps)
        begun.append(steps)
        if len(begun) == 6:  # in the second generation
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(progress.ProgressBar, "advance", advance_and_interrupt)
        with pytest.raises(Interrupted, match="SIGTERM"):
            generations.train(recipe.build(config_of()), str(tmp_path))
    generations.train(recipe.build(config_of()), str(tmp_path))
    assert (tmp_path / "generation=1.json").read_bytes() == (
        whole / "generation=1.json"
    ).read_bytes()
    for run in ("generation=0", "generation=1"):
        one, other = final_state(whole / run)[1]["state"], final_state(tmp_path / run)[1]["state"]
        for key in ("params", "ema", "method"):
            np.testing.assert_equal(one[key], other[key])


@pytest.mark.slow
def test_hidden_labels_reach_no_generation(chain, tmp_path):
    whole, _ = chain
    config = config_of()
    first = recipe.build(config)
    labels = first.dataset.labels.copy()
    hidden = np.setdiff1d(np.arange(len(labels)), first.split.labeled)
    labels[hidden] = np.random.default_rng(0).permutation(labels[hidden])
    data = first.dataset._replace(labels=labels), first.split
    generations.train(recipe.build(config, data=data), str(tmp_path))
    picked = [json.loads((x / "generation=1.json").read_text()) for x in (whole, tmp_path)]
    assert picked[0] == picked[1]
    for run in ("generation=0", "generation=1"):
        one, other = final_state(whole / run)[1]["state"], final_state(tmp_path / run)[1]["state"]
        np.testing.assert_equal(one, other)


@pytest.mark.slow
def test_arrays_can_be_learned_in_generations(tmp_path):
    data = datasets.digits()
    labels = np.where(np.arange(len(data.labels)) < 60, data.labels, -1)
    trained = library.fit(
        data.images, labels, method="crest", workdir=tmp_path, num_steps=3, eval_every=3,
        log_every=3, method_args={"generations": 2}, model_args={"filters": 4, "scales": 1},
    )  # fmt: skip
    assert trained.workdir == tmp_path / "generation=1"
    assert trained.predict(data.test_images[:5]).shape == (5,)


def test_what_generations_cannot_be_is_one_line(tmp_path, untraced):
    config = config_of()
    config.num_seeds = 2
    with pytest.raises(UsageError, match="num_seeds is 2; allowed for config.method 'crest': 1"):
        recipe.build_seeds(config)
    config = config_of()
    config.stage.train_url = "memory://there"
    with pytest.raises(UsageError, match="'crest' trains in generations; allowed with --workdir"):
        generations.train(recipe.build(config), str(tmp_path))
    config = config_of()
    config.method_args.generation = 1
    with pytest.raises(UsageError, match="method_args.generation is set while training"):
        generations.train(recipe.build(config), str(tmp_path))
    assert not list(tmp_path.iterdir())
