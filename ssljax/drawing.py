"""matplotlib, without a screen, and whatever backend $MPLBACKEND names.

Importing it fails where that backend is not installed, as in a process that a notebook starts.
"""

import contextlib
import os
import sys

_backend = None if "matplotlib" in sys.modules else os.environ.pop("MPLBACKEND", None)
try:
    import matplotlib as mpl
    from matplotlib.figure import Figure
finally:
    if _backend is not None:
        os.environ["MPLBACKEND"] = _backend
if _backend is not None:
    with contextlib.suppress(ValueError):  # for pyplot, which is not used here
        mpl.rcParams["backend"] = _backend

__all__ = ["Figure", "mpl"]
