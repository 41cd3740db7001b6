import dataclasses
import json
import os
import re
import signal
import time
from contextlib import nullcontext
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from helpers.processes import LIGHT, final_state, finish, rows_of, start, train_here
from helpers.tiny import build
from ssljax import evaluation
from ssljax.errors import Interrupted, RunError, UsageError
from ssljax.run import directory, loop, metrics
from ssljax.storage.checkpoints import Checkpoints
from ssljax.training.stream import Stream


def test_at_a_boundary_the_steps_of_a_stream_are_done():
    experiment = SimpleNamespace(num_steps=4, log_every=4, eval_every=4, steps_per_run=4)
    quiet = SimpleNamespace(write=print, advance=lambda steps: None)
    watchdog = SimpleNamespace(median=lambda: 0.1, call=lambda *_, **__: nullcontext())
    with Stream(iter(range(4)), lambda batch: batch) as feed:

        def steps(state, sums, feed, count):
            for _ in range(count):
                feed.follow(jnp.asarray(feed.next()))
            return state, sums

        program = SimpleNamespace(experiment=experiment, run=steps, members=[])
        stop = SimpleNamespace(called=True)
        session = loop.Session(program, 0, feed, None, {}, stop, quiet, watchdog)
        now = loop._run_steps(session, loop.LoopState(0, None, {}, logged=True))
    assert (now.step, feed.done) == (4, 4)


def test_what_was_trained_is_kept_where_an_evaluation_is_impossible(config, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(loop, "_evaluate", lambda *_: (_ for _ in ()).throw(RunError("no images")))
        with pytest.raises(RunError, match="no images"):
            loop.train(build(config), tmp_path / "run")
    assert [path.name for path in (tmp_path / "run/checkpoints").iterdir()] == ["4"]
    assert [row["step"] for row in rows_of(tmp_path / "run")] == [2]


def test_a_run_leaves_everything_that_is_promised(config, tmp_path, capsys):
    experiment = build(config)
    record = loop.train(experiment, tmp_path / "run")
    workdir = tmp_path / "run"
    rows = rows_of(workdir)
    assert [row["step"] for row in rows] == [2, 4, 6, 8, 10, 12]
    assert {"loss/xe", "loss/xeu", "guess/mask_rate", "guess/confidence", "guess/class_entropy",
            "guess/accuracy", "learning_rate"} <= rows[0].keys()  # fmt: skip
    # A row covers the steps since the previous one.
    rates = [experiment.schedule(step) for step in (10, 11)]
    assert rows[-1]["learning_rate"] == pytest.approx(np.mean(rates), rel=1e-6)
    assert rows[-2]["learning_rate"] > max(rates)
    assert json.loads((workdir / "config.json").read_text())["method"] == "fixmatch"
    split = json.loads((workdir / "split.json").read_text())
    assert len(split["labeled"]) == 40
    assert len(split["valid"]) == 100
    assert json.loads((workdir / "results.json").read_text()) == record
    accuracies = [row["test/accuracy_ema"] for row in rows if row["step"] in (4, 8, 12)]
    assert record["headline"]["test_accuracy"] == pytest.approx(np.median(accuracies), abs=1e-6)
    assert record["last"]["valid/accuracy_raw"] == rows[-1]["valid/accuracy_raw"]
    assert final_state(workdir)[0] == 12
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "compiling the step …"
    assert lines[1].startswith("step 2: loss ")
    # One line per boundary, followed by the final pointers.
    boundaries = [line for line in lines if line.startswith("step ")]
    assert [line.split(":")[0] for line in boundaries] == [
        f"step {n}" for n in (2, 4, 6, 8, 10, 12)
    ]
    assert boundaries[-1].startswith("step 12: test accuracy ")
    assert re.search(r"; loss \d+\.\d{4}, \d+ images/s, 0 s left$", boundaries[-1])
    assert not any("nan" in line for line in lines)
    assert lines[-3:] == [
        f"numbers: {workdir}/results.json and {workdir}/metrics.jsonl",
        f"curve: {workdir}/curve.png",
        f"report: ssljax --mode=report --workdir={workdir}",
    ]


def test_the_classes_are_watched_and_a_run_of_a_version_without_that_goes_on(
    config, tmp_path, capsys, monkeypatch
):
    experiment = build(config, num_steps=4)
    loop.train(experiment, tmp_path / "whole")
    whole = rows_of(tmp_path / "whole")
    kinds = {f"guess/{x}_{k}" for x in ("mask_rate", "accuracy") for k in ("rarest", "frequent")}
    assert kinds <= whole[0].keys()
    assert "rarest class" not in capsys.readouterr().out  # 4 labels per class
    # Such a version saved metric sums without per-class values.
    sums = experiment.shapes["window"]
    old = {name: shape for name, shape in sums.items() if shape.count.ndim == 0}
    assert set(sums) - set(old) == {"guess/class_mask_rate", "guess/class_accuracy"}
    directory.open_directory(tmp_path / "run", experiment)
    empty = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), old)
    with Checkpoints(tmp_path / "run", keep=0) as checkpoints:
        checkpoints.save(0, {"state": experiment.init_state(), "window": empty})
    monkeypatch.setattr(loop, "are_uneven", lambda counts: True)
    loop.train(experiment, tmp_path / "run")
    resumed = rows_of(tmp_path / "run")
    assert resumed == whole
    lines = [line for line in capsys.readouterr().out.splitlines() if "rarest class: " in line]
    assert len(lines) == 1  # the evaluation's line
    assert re.search(r"; most frequent class: mask rate [01]\.\d\d, guess acc.*; loss ", lines[0])


def test_a_run_with_nothing_to_evaluate_on(config, tmp_path):
    config.dataset = "digits.1@40-0"
    experiment = build(config)
    none = experiment.dataset._replace(
        test_images=experiment.dataset.test_images[:0],
        test_labels=experiment.dataset.test_labels[:0],
    )
    record = loop.train(dataclasses.replace(experiment, dataset=none), tmp_path)
    assert record == {"step": 12, "headline": {}, "last": {}}
    rows = rows_of(tmp_path)
    assert [row["step"] for row in rows] == [2, 4, 6, 8, 10, 12]
    assert not any(name.startswith(("test/", "valid/")) for row in rows for name in row)
    assert not (tmp_path / "predictions.npz").exists()
    assert not (tmp_path / "curve.png").exists()
    assert final_state(tmp_path)[0] == 12


def test_a_finished_run_can_be_made_longer(config, tmp_path):
    loop.train(build(config), tmp_path)
    config.num_steps = 14
    loop.train(build(config), tmp_path)
    assert [row["step"] for row in rows_of(tmp_path)] == [2, 4, 6, 8, 10, 12, 14]


def test_the_newest_checkpoint_and_some_before_it_are_kept(config, tmp_path):
    config.keep_checkpoints = 1
    loop.train(build(config), tmp_path)
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["12", "8"]


def test_evaluating_the_directory_gives_the_recorded_figures(config, tmp_path):
    experiment = build(config)
    record = loop.train(experiment, tmp_path)
    found = evaluation.evaluate_directory(tmp_path)
    assert found.step == 12
    # On four devices; the run had one.
    assert found.scores == pytest.approx(record["last"], rel=1e-5)


def test_a_signal_between_two_evaluations_changes_nothing(config, tmp_path, monkeypatch):
    """Stopped at step 7, inside a window of metrics, and resumed: the rows are the same, too."""
    config.log_every = 3
    experiment = build(config)
    loop.train(experiment, tmp_path / "whole")

    advance = loop.ProgressBar.advance

    def advance_and_interrupt(self, steps):
        advance(self, steps)
        if self._steps_left == 5:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(loop.ProgressBar, "advance", advance_and_interrupt)
        with pytest.raises(Interrupted, match="SIGTERM: saved after step 7") as caught:
            loop.train(experiment, tmp_path / "cut")
    assert caught.value.signum == signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL  # handlers are restored
    assert final_state(tmp_path / "cut")[0] == 7
    loop.train(experiment, tmp_path / "cut")

    assert [row["step"] for row in rows_of(tmp_path / "whole")] == [3, 4, 6, 8, 9, 12]
    assert rows_of(tmp_path / "whole") == rows_of(tmp_path / "cut")
    whole, cut = final_state(tmp_path / "whole"), final_state(tmp_path / "cut")
    jax.tree.map(np.testing.assert_array_equal, whole, cut)


@pytest.mark.slow
def test_a_killed_run_continues_bit_for_bit(tmp_path):
    """Compares a process that is killed with this one, which continues in its place."""
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    train_here(whole, *LIGHT, "--config.num_steps=24", devices=1)
    child = start(cut, *LIGHT, "--config.num_steps=24")
    while len(metrics.read_rows(cut / "metrics.jsonl")) < 7:  # after three evaluations
        assert child.poll() is None
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    assert finish(child)[0] == -signal.SIGKILL
    assert not (cut / "results.json").exists()

    train_here(cut, *LIGHT, "--config.num_steps=24", devices=1)
    jax.tree.map(np.testing.assert_array_equal, final_state(whole), final_state(cut))
    assert rows_of(whole) == rows_of(cut)
    assert (whole / "results.json").read_text() == (cut / "results.json").read_text()


def test_a_loss_that_is_not_finite_stops_the_run(config, tmp_path):
    experiment = build(config)
    rate = lambda step: jnp.where(step < 6, 0.01, jnp.inf)  # noqa: E731
    experiment = dataclasses.replace(
        experiment, optimizer=optax.chain(optax.identity(), optax.sgd(rate))
    )
    with pytest.raises(RunError, match="not finite at step 8"):
        loop.train(experiment, tmp_path)
    assert final_state(tmp_path)[0] == 4
    assert not (tmp_path / "results.json").exists()


def test_another_config_is_refused(config, tmp_path):
    loop.train(build(config), tmp_path)
    config.optimizer.lr = 0.05
    with pytest.raises(UsageError, match=r"config\.optimizer\.lr=0\.03, not 0\.05"):
        loop.train(build(config), tmp_path)


def test_another_split_is_refused(config, tmp_path):
    experiment = build(config)
    loop.train(experiment, tmp_path)
    split = experiment.split._replace(unlabeled=experiment.split.unlabeled[::-1])
    with pytest.raises(UsageError, match="another split"):
        loop.train(dataclasses.replace(experiment, split=split), tmp_path)


def test_a_directory_with_something_else_in_it_is_refused(config, tmp_path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(UsageError, match="not empty"):
        loop.train(build(config), tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("damage", ["truncate", "remove_metadata"])
def test_a_checkpoint_that_cannot_be_read_stops_the_run(config, tmp_path, damage):
    experiment = build(config)
    loop.train(experiment, tmp_path)
    newest = tmp_path / "checkpoints" / "12"
    if damage == "truncate":
        largest = max((p for p in newest.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
        largest.write_bytes(largest.read_bytes()[:100])
    else:
        for path in [p for p in newest.rglob("*") if p.is_file()]:
            path.unlink()
    with pytest.raises(UsageError, match="checkpoints/12, cannot be read"):
        loop.train(dataclasses.replace(experiment, num_steps=16), tmp_path)


def test_no_checkpoint_but_a_broken_one_does_not_start_over(config, tmp_path):
    experiment = build(config)
    directory.open_directory(tmp_path, experiment)
    (tmp_path / "checkpoints" / "4").mkdir(parents=True)
    with pytest.raises(UsageError, match="checkpoints/4, cannot be read"):
        loop.train(experiment, tmp_path)


def test_evaluating_before_the_first_checkpoint_says_so(config, tmp_path):
    experiment = build(config)
    directory.open_directory(tmp_path, experiment)
    with pytest.raises(UsageError, match="no checkpoint"):
        evaluation.evaluate_directory(tmp_path)


def test_of_several_runs_a_checkpoint_is_removed_once_each_has_a_newer_one(monkeypatch):
    """A kill at any time leaves a step that all runs have."""
    done = []

    class Writer:
        def __init__(self, name):
            self.name = name

        def __getattr__(self, call):
            return lambda *_: done.append(f"{call} {self.name}")

    members = [loop.Member(None, Writer(name)) for name in "ab"]
    program = SimpleNamespace(members=members, split=lambda tree, axis: [tree, tree])
    monkeypatch.setattr(loop.parallel, "fetch", lambda tree: tree)
    session = SimpleNamespace(program=program, stop=SimpleNamespace())
    loop._save(session, loop.LoopState(4, None, None, logged=True))
    assert done == ["wait a", "wait b", "prune a", "prune b", "save a", "save b"]
