"""Real weights and timm's outputs for them, if available beside the checkout."""

from pathlib import Path

import numpy as np
import pytest

FOLDER = Path(__file__).parents[3] / "shared" / "data" / "backbones"


def reference(name):
    """Returns the path of a weight file, and timm's results for it: images, features, …"""
    path = FOLDER / f"{name}.safetensors"
    if not path.exists():
        pytest.skip(f"{path} is not there")
    return path, dict(np.load(FOLDER / f"{name}.npz"))


def relative_difference(found, expected):
    return np.max(np.abs(np.asarray(found) - expected)) / np.max(np.abs(expected))
