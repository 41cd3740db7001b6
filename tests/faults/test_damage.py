"""Tests files of a run that are changed after they were written, byte by byte."""

import dataclasses
import random
import shutil

import jax
import numpy as np
import pytest

from helpers.processes import final_state, rows_of
from helpers.tiny import build, tiny_config
from ssljax import evaluation, trained
from ssljax.errors import UsageError
from ssljax.report import runs
from ssljax.run import loop
from ssljax.storage import checksums
from ssljax.storage.checkpoints import Checkpoints

CASES = 48
OTHERS = (
    "config.json", "data.json", "split.json", "environment.json", "metrics.jsonl",
    "predictions.npz", "labelled.png",
)  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A recipe, and a finished run of 12 steps with checkpoints of steps 4, 8 and 12."""
    experiment = build(tiny_config())
    workdir = tmp_path_factory.mktemp("run")
    loop.train(experiment, workdir)
    return experiment, workdir


def damage(path, rng):
    """Truncates the file or flips one bit; returns what was done."""
    content = bytearray(path.read_bytes())
    offset = rng.randrange(len(content))
    if rng.random() < 0.3:
        path.write_bytes(content[:offset])
        return f"{path.name} cut off at {offset} of {len(content)}"
    content[offset] ^= 1 << rng.randrange(8)
    path.write_bytes(content)
    return f"{path.name}: a bit of byte {offset} of {len(content)} flipped"


def restore(workdir, template, **options):
    with Checkpoints(workdir, keep=20) as checkpoints:
        return checkpoints.restore_newest(template, **options)


def test_no_damage_changes_what_is_restored(run, tmp_path):
    """Damages every file of the newest checkpoint: it is detected, or the arrays are the same."""
    experiment, workdir = run
    template, (_, expected) = experiment.shapes, final_state(workdir)
    names = [p.relative_to(workdir) for p in sorted((workdir / "checkpoints/12").rglob("*"))]
    names = [name for name in names if (workdir / name).is_file()]
    assert len(names) > 8
    rng, found, harmless = random.Random(1), [], []
    for case in range(CASES):
        copy = tmp_path / str(case)
        shutil.copytree(workdir, copy)
        what = damage(copy / names[case % len(names)], rng)
        try:
            step, tree = restore(copy, template)
        except UsageError as error:
            found.append((what, str(error)))
        else:
            assert step == 12, what
            leaves = jax.tree.leaves(tree), jax.tree.leaves(expected)
            assert all(map(np.array_equal, *leaves)), f"unnoticed: {what}"
            harmless.append(what)
        shutil.rmtree(copy)
    assert len(found) + len(harmless) == CASES
    for what, message in found:
        assert "checkpoints/12, cannot be read" in message, what
        assert "--config.checkpoint.fallback=true" in message, what
    assert all("manifest.json" in what for what in harmless), harmless
    assert len(found) > 0.9 * CASES


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def largest(directory):
    return max((p for p in directory.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)


def test_fallback_takes_the_one_before_and_ends_the_same(run, tmp_path, capsys):
    experiment, workdir = run
    copy = tmp_path / "copy"
    shutil.copytree(workdir, copy)
    flip(largest(copy / "checkpoints/12"))
    (copy / "results.json").unlink()
    with pytest.raises(UsageError, match=r"12, cannot be read \(.*has changed since"):
        loop.train(experiment, copy)
    with pytest.raises(UsageError, match="cannot be read"):
        evaluation.evaluate_directory(copy)
    assert not (copy / "results.json").exists()

    loop.train(build(tiny_config(), fallback=True), copy)
    assert "using the previous one, of step 8" in capsys.readouterr().out
    jax.tree.map(np.testing.assert_array_equal, final_state(copy), final_state(workdir))
    assert rows_of(copy) == rows_of(workdir)
    assert (copy / "checkpoints/12.damaged").is_dir()


def test_fallback_does_not_start_over_when_nothing_can_be_read(run, tmp_path):
    _, workdir = run
    copy = tmp_path / "copy"
    shutil.copytree(workdir, copy)
    for step in (4, 8, 12):
        flip(largest(copy / f"checkpoints/{step}"))
    with pytest.raises(UsageError, match="the last checkpoint, .*/4, cannot be read"):
        loop.train(build(tiny_config(), fallback=True), copy)


def readable(run):
    """Returns what a report reads, without its remarks."""
    values = dataclasses.asdict(run)
    del values["notes"], values["path"], values["name"]
    return jax.tree.map(np.asarray, values)


@pytest.mark.parametrize("name", OTHERS)
def test_no_damage_of_another_file_is_read_without_a_word(name, run, tmp_path):
    _, workdir = run
    expected = readable(runs.read(workdir, "run"))
    copy = tmp_path / "run"
    shutil.copytree(workdir, copy)
    content, rng = (workdir / name).read_bytes(), random.Random(1)
    noticed = 0
    for _ in range(30):
        (copy / name).write_bytes(content)
        what = damage(copy / name, rng)
        found = runs.read(copy, "run")
        noticed += any(name in note for note in found.notes)
        if not any(name in note for note in found.notes):
            assert jax.tree.all(jax.tree.map(np.array_equal, readable(found), expected)), what
    assert noticed >= (15 if name == "predictions.npz" else 30)


@pytest.mark.parametrize("name", ["config.json", "data.json", "results.json"])
def test_a_damaged_description_is_refused_by_name(name, run, tmp_path):
    experiment, workdir = run
    copy = tmp_path / "run"
    shutil.copytree(workdir, copy)
    flip(copy / name)
    with pytest.raises(UsageError, match=f"{name} (has changed since|cannot be read)"):
        trained.load(copy)
    if name == "config.json":
        with pytest.raises(UsageError, match=f"{name} (has changed since|cannot be read)"):
            loop.train(experiment, copy)


def test_a_checkpoint_that_training_removes_meanwhile_gives_way_to_a_newer_one(
    run, tmp_path, monkeypatch
):
    """As during an export, with `keep_checkpoints=0`."""
    experiment, workdir = run
    copy, verify = tmp_path / "run", checksums.verify
    shutil.copytree(workdir, copy)

    def train_on(path):
        if path.name == "12":
            path.rename(path.with_name("16"))
        verify(path)

    monkeypatch.setattr(checksums, "verify", train_on)
    assert restore(copy, experiment.shapes)[0] == 16
