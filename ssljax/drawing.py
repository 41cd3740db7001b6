"""matplotlib without a display, whatever backend $MPLBACKEND names.

A plain import fails if that backend is not installed, as in a process started from a notebook.
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
    with contextlib.suppress(ValueError):  # for pyplot, which this package does not use
        mpl.rcParams["backend"] = _backend

__all__ = ["Figure", "mpl"]
