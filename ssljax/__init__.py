"""Semi-supervised image classification in JAX: one pure training step, one file per method.

A notebook needs `build`, `train`, `load` and `fit`; each is imported on first use.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ssljax.library import fit, train
    from ssljax.recipe import build
    from ssljax.trained import load

__all__ = ["build", "fit", "load", "train"]
_HOMES = {"build": "recipe", "fit": "library", "load": "trained", "train": "library"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'ssljax' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"ssljax.{_HOMES[name]}"), name)
