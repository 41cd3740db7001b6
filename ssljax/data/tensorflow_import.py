"""Imports TensorFlow, an optional dependency used only to read data; it sees no accelerator."""

import importlib
from types import ModuleType

from ssljax.errors import UsageError
from ssljax.log import quiet_import

_NAMES = {"tensorflow": "TensorFlow", "tensorflow_datasets": "TensorFlow Datasets"}


def require(module: str, who: str) -> ModuleType:
    """Imports `tensorflow` or `tensorflow_datasets`, which `who` needs.

    Raises:
      UsageError: the module is not installed.
    """
    try:
        with quiet_import():
            tensorflow = importlib.import_module("tensorflow")
            found = importlib.import_module(module)
    except ImportError as error:
        raise UsageError(
            f"{who} needs {_NAMES[module]}, which is not installed ({error}): "
            "pip install -e '.[tensorflow]'"
        ) from error
    tensorflow.config.set_visible_devices([], "GPU")
    return found
