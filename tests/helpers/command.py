"""Commands within the process of the tests: a process of their own costs seconds."""

import pytest

from ssljax import cli
from ssljax.training import huge_pages


def command(capsys: pytest.CaptureFixture[str], *args: object) -> tuple[int, str, str]:
    """The exit code of `launch.py *args`, its output, and its errors."""
    capsys.readouterr()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(huge_pages, "restart", lambda: None)  # it would start pytest again
        code = cli.main([str(arg) for arg in args])
    return code, *capsys.readouterr()


def refused(capsys: pytest.CaptureFixture[str], *args: object) -> str:
    """The one line that a command with bad input is refused with."""
    code, _, errors = command(capsys, *args)
    assert code == 2
    assert errors.startswith("error: ")
    assert errors.count("\n") == 1
    return errors
