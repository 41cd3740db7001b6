"""`kill_loop.py`, short, and as long as the issue of a fault-tolerant run asks for."""

import pytest

from helpers.kill_loop import torment


@pytest.mark.slow
@pytest.mark.parametrize(("kills", "num_steps"), [(3, 48), (30, 200)])
def test_kills_at_random_instants_change_nothing(kills, num_steps, tmp_path):
    assert torment(tmp_path, kills=kills, seed=1, num_steps=num_steps).total() == kills
