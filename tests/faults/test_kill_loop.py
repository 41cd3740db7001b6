"""Runs `kill_loop.py`: a short version, and one as long as the issue on fault tolerance asks."""

import pytest

from helpers.kill_loop import torment


@pytest.mark.slow
@pytest.mark.parametrize(("kills", "num_steps"), [(3, 48), (30, 200)])
def test_kills_at_random_instants_change_nothing(kills, num_steps, tmp_path):
    assert torment(tmp_path, kills=kills, seed=1, num_steps=num_steps).total() == kills
