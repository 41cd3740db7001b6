"""Dash on STL-10."""

import ml_collections

from configs import published


def get_config() -> ml_collections.ConfigDict:
    """The values of the authors' script for SVHN."""
    return published.dash("stl10.1@1000-1")
