"""Learning methods, one per file; `method.py` has their common interface."""
