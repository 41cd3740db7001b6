"""Runs commands within the process of the tests, as a separate process takes seconds."""

import pytest

from ssljax import cli
from ssljax.training import huge_pages


def command(capsys: pytest.CaptureFixture[str], *args: object) -> tuple[int, str, str]:
    """Runs `launch.py *args`; returns exit code, output and errors."""
    capsys.readouterr()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(huge_pages, "restart", lambda: None)  # a restart would start pytest again
        code = cli.main([str(arg) for arg in args])
    return code, *capsys.readouterr()


def refused(capsys: pytest.CaptureFixture[str], *args: object) -> str:
    """Returns the one-line error of a command with invalid input."""
    code, _, errors = command(capsys, *args)
    assert code == 2
    assert errors.startswith("error: ")
    assert errors.count("\n") == 1
    return errors
