"""Checkpoints in directories of any name."""

import os

import numpy as np
import pytest

from ssljax.storage.checkpoints import Checkpoints

TREE = {"state": {"weights": np.arange(3.0)}}


@pytest.mark.parametrize(
    "name", ["run [1]", "[!a]", "a*", "**", "a?", "a\\b", "a\nb", os.fsdecode(b"\xff")]
)
def test_a_directory_may_have_any_name(name, tmp_path):
    (tmp_path / "ab").mkdir()  # what a pattern would find
    workdir = tmp_path / name / "run"
    workdir.mkdir(parents=True)
    with Checkpoints(workdir, keep=0) as checkpoints:
        for step in (1, 2):
            checkpoints.save(step, TREE)
        checkpoints.wait()
        assert checkpoints.steps() == [2, 1]
        checkpoints.prune()
        assert checkpoints.steps() == [2]
        step, found = checkpoints.restore_newest()
    assert step == 2
    np.testing.assert_array_equal(found["state"]["weights"], TREE["state"]["weights"])
