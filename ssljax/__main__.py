"""`python -m ssljax` takes the flags of `launch.py`."""

from ssljax.cli import run

if __name__ == "__main__":
    run()
