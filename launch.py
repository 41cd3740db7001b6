"""Trains, evaluates, reports, exports, shows data: `python launch.py --help`."""

from ssljax.cli import run

if __name__ == "__main__":
    run()
