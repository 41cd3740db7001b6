"""Every knob is in `ssljax/defaults.py`; recipes start from it and change what differs."""

from ssljax.defaults import get_config

__all__ = ["get_config"]
