"""Tests several seeds in one program against each seed alone."""

import json
import os
import signal
import sys
import types

import jax
import numpy as np
import pytest

from helpers.processes import final_state, rows_of
from helpers.tiny import build, tiny_config
from ssljax import recipe
from ssljax.data import datasets
from ssljax.errors import Interrupted, RunError, UsageError
from ssljax.run import loop, progress, seeds

TOLERANCE = 1e-6  # absolute, for weights and losses after 12 steps


def seeds_config(method="fixmatch", num_seeds=3):
    config = tiny_config(method)
    config.num_seeds = num_seeds
    config.seed = 5
    return config


def assert_close(one, two):
    """Compares everything in a checkpoint, except noise that Adam makes of biases before BatchNorm:
    nothing depends on them, so their gradients are rounding errors, which Adam normalises."""
    for (path, x), y in zip(
        jax.tree_util.tree_leaves_with_path(one), jax.tree.leaves(two), strict=True
    ):
        if "Conv" not in (name := jax.tree_util.keystr(path)) or "bias" not in name:
            np.testing.assert_allclose(x, y, atol=TOLERANCE, rtol=1e-4, err_msg=name)


@pytest.mark.slow
def test_each_seed_equals_the_run_with_that_seed_alone(tmp_path):
    config = seeds_config(num_seeds=2)
    results = seeds.train(recipe.build_seeds(config), tmp_path / "all")
    assert list(results) == ["seed=5", "seed=6"]
    states = []
    for i in range(2):
        alone = tiny_config()
        alone.seed, alone.dataset = 5 + i, f"digits.{1 + i}@40-100"
        record = loop.train(build(alone), tmp_path / f"alone{i}")
        together = tmp_path / "all" / f"seed={5 + i}"
        assert json.loads((together / "results.json").read_text()) == results[f"seed={5 + i}"]
        for file in ("config.json", "split.json", "data.json", "labelled.png", "environment.json"):
            assert (together / file).read_bytes() == (tmp_path / f"alone{i}" / file).read_bytes()
        (step, one), (_, other) = final_state(together), final_state(tmp_path / f"alone{i}")
        assert step == 12
        assert_close(one, other)
        for row, expected in zip(rows_of(together), rows_of(tmp_path / f"alone{i}"), strict=True):
            assert row.keys() == expected.keys()
            for key, value in expected.items():
                assert row[key] == pytest.approx(value, abs=1e-5), key
        assert results[together.name]["headline"] == record["headline"]
        states.append(one["state"]["params"])
        # The separate run has nothing left to do.
        assert loop.train(build(alone), together) == results[together.name]
    kernels = [state["Dense_0"]["kernel"] for state in states]
    assert np.abs(kernels[0] - kernels[1]).max() > 0.01  # the runs differ


@pytest.mark.slow
def test_a_method_whose_unlabelled_images_exclude_the_labelled_ones(tmp_path):
    """Adam, MixUp across the batch, adjusted logits, and splits that differ in all three lists."""
    config = seeds_config("mixmatch", num_seeds=2)
    config.num_steps, config.logit_adjustment = 6, 1.0
    seeds.train(recipe.build_seeds(config), tmp_path / "all")
    for i in range(2):
        alone = tiny_config("mixmatch")
        alone.seed, alone.dataset, alone.num_steps = 5 + i, f"digits.{1 + i}@40-100", 6
        alone.logit_adjustment = 1.0
        loop.train(build(alone), tmp_path / f"alone{i}")
        _, one = final_state(tmp_path / "all" / f"seed={5 + i}")
        _, other = final_state(tmp_path / f"alone{i}")
        assert_close(one["state"]["params"], other["state"]["params"])


@pytest.mark.slow
def test_an_interrupted_program_goes_on_bit_for_bit(tmp_path, monkeypatch):
    experiments = recipe.build_seeds(seeds_config(num_seeds=2))
    seeds.train(experiments, tmp_path / "whole")
    advance = progress.ProgressBar.advance

    def advance_and_interrupt(self, steps):
        advance(self, steps)
        if self._steps_left == 5:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(progress.ProgressBar, "advance", advance_and_interrupt)
        with pytest.raises(Interrupted, match="SIGTERM: saved after step 7"):
            seeds.train(experiments, tmp_path / "cut")
    # As if killed while saving: one seed lacks the newest checkpoint.
    os.rename(tmp_path / "cut" / "seed=6" / "checkpoints" / "7", tmp_path / "lost")
    seeds.train(experiments, tmp_path / "cut")
    for name in ("seed=5", "seed=6"):
        whole, cut = final_state(tmp_path / "whole" / name), final_state(tmp_path / "cut" / name)
        jax.tree.map(np.testing.assert_array_equal, whole, cut)
        assert rows_of(tmp_path / "whole" / name) == rows_of(tmp_path / "cut" / name)
    before = (tmp_path / "whole" / "seed=5" / "metrics.jsonl").stat().st_mtime_ns
    seeds.train(experiments, tmp_path / "whole")
    assert (tmp_path / "whole" / "seed=5" / "metrics.jsonl").stat().st_mtime_ns == before


def test_what_cannot_share_a_program_is_refused(tmp_path):
    config = seeds_config()
    config.num_seeds = 0
    with pytest.raises(UsageError, match="config.num_seeds is 0; allowed: from 1 to 1000"):
        recipe.build_seeds(config)
    config.num_seeds = 2
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UsageError, match="holds a run; several runs need another directory"):
        seeds.train(recipe.build_seeds(config), tmp_path)
    assert len(list(tmp_path.iterdir())) == 1


def test_logits_are_adjusted_by_shares_that_all_seeds_have(monkeypatch):
    mine = types.ModuleType("my_data")

    def sets(seed):
        labels = datasets.digits().labels
        counts = np.full(10, 2)
        counts[seed % 2] += 1  # a different class for each seed
        return np.concatenate([np.flatnonzero(labels == c)[:n] for c, n in enumerate(counts)])

    mine.uneven = lambda: datasets.digits()._replace(folds={21: sets})
    monkeypatch.setitem(sys.modules, "my_data", mine)
    config = seeds_config("supervised", num_seeds=2)
    config.dataset, config.logit_adjustment = "my_data.uneven.1@21-0", 1.0
    with pytest.raises(
        UsageError, match="num_seeds is 2, whose labelled images differ in how many"
    ):
        recipe.build_seeds(config)


def test_a_split_file_is_every_seed_s_split(tmp_path):
    config = seeds_config(num_seeds=2)
    first = recipe.build_seeds(config)[0]
    lists = {name: indices.tolist() for name, indices in first.split._asdict().items()}
    (tmp_path / "split.json").write_text(json.dumps(lists))
    config.split_file = str(tmp_path / "split.json")
    one, two = recipe.build_seeds(config)
    assert one.config["dataset"] == two.config["dataset"] == "digits.1@40-100"
    assert (one.seed, two.seed) == (5, 6)
    np.testing.assert_array_equal(one.split.labeled, two.split.labeled)
    assert two.config["num_seeds"] == 1


def test_a_weight_that_is_not_finite_stops_all(tmp_path):
    config = seeds_config("supervised", num_seeds=2)
    config.optimizer.lr = 1e30
    with pytest.raises(RunError, match="not finite"):
        seeds.train(recipe.build_seeds(config), tmp_path)
    assert (tmp_path / "seed=5" / "failure.txt").exists()
