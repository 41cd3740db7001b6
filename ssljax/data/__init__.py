"""Data sets, splits and sampling: which images are used, and in which order."""
