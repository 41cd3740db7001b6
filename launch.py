"""Trains, evaluates, reports, exports, shows data: `python launch.py --help`."""

from ssljax import cli


def main(argv: list[str]) -> int:
    """Runs one command, given as `sys.argv` has it; returns its exit code."""
    return cli.main(argv[1:])


if __name__ == "__main__":
    cli.run()
