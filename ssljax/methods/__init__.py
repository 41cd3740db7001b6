"""Learning methods: one file each, behind the contract of `method.py`."""
