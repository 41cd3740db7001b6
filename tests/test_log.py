import subprocess
import sys

# C++ writes to the file descriptor, past `sys.stderr`.
PROGRAM = """
import os, sys
from ssljax.log import quiet_import
try:
    with quiet_import():
        os.write(2, b"WARNING: All log messages before absl::InitializeLog() is called are\\n")
        os.write(2, b"I0000 00:00:1795633607.876773   15175 port.cc:153] oneDNN\\n")
        os.write(2, b"E0000 00:00:1795633607.876773   15175 gpu.cc:7] it is broken\\n")
        if sys.argv[1:] == ["fail"]:
            raise ImportError("libtensorflow.so")
finally:
    os.write(2, b"after\\n")
"""


def lines(*arguments):
    command = [sys.executable, "-c", PROGRAM, *arguments]
    return subprocess.run(command, capture_output=True, text=True).stderr.splitlines()


def test_an_import_is_quiet_and_errors_come_through():
    error, after = lines()
    assert error.endswith("it is broken")
    assert after == "after"


def test_an_import_that_fails_tells_everything():
    warning, note, error, after, *_, last = lines("fail")
    assert warning.startswith("WARNING:")
    assert note.endswith("oneDNN")
    assert error.endswith("it is broken")
    assert after == "after"
    assert last == "ImportError: libtensorflow.so"
