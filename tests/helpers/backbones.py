"""Real weights and what timm computes with them; where they lie beside the checkout."""

from pathlib import Path

import numpy as np
import pytest

FOLDER = Path(__file__).parents[3] / "shared" / "data" / "backbones"


def reference(name):
    """The path of a file's weights, and what timm computes with them: images, features, …"""
    path = FOLDER / f"{name}.safetensors"
    if not path.exists():
        pytest.skip(f"{path} is not there")
    return path, dict(np.load(FOLDER / f"{name}.npz"))


def relative_difference(found, expected):
    return np.max(np.abs(np.asarray(found) - expected)) / np.max(np.abs(expected))
