"""Tests checkpoints in directories with unusual names, and those of older versions."""

import os

import numpy as np
import pytest

from ssljax.errors import UsageError
from ssljax.storage.checkpoints import Checkpoints

TREE = {"state": {"weights": np.arange(3.0)}}


@pytest.mark.parametrize(
    "name", ["run [1]", "[!a]", "a*", "**", "a?", "a\\b", "a\nb", os.fsdecode(b"\xff")]
)
def test_a_directory_may_have_any_name(name, tmp_path):
    (tmp_path / "ab").mkdir()  # a pattern would match this
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


def test_what_an_older_version_did_not_save_is_zeros(tmp_path):
    old, new = {"a": np.ones(2)}, {"a": np.zeros(2), "b": np.ones(3)}
    with Checkpoints(tmp_path, keep=0) as checkpoints:
        checkpoints.save(1, {**TREE, "window": old})
        checkpoints.wait()
        step, found = checkpoints.restore_newest({**TREE, "window": new}, growing="window")
        assert step == 1
        assert {k: v.tolist() for k, v in found["window"].items()} == {"a": [1, 1], "b": [0, 0, 0]}
        np.testing.assert_array_equal(found["state"]["weights"], TREE["state"]["weights"])
        other = {"state": {**TREE["state"], "more": np.ones(3)}, "window": new}
        with pytest.raises(UsageError, match="belongs to another run"):
            checkpoints.restore_newest(other, growing="window")
