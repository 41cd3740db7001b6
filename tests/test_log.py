import io
import os
import subprocess
import sys

import pytest

from ssljax import log

# C++ writes to the file descriptor, bypassing `sys.stderr`.
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


@pytest.fixture
def lasting():
    """`lasting(descriptor)` returns a text stream that discards what it cannot write."""

    def make(descriptor):
        raw = log._Lasting(descriptor, "w")
        return io.TextIOWrapper(io.BufferedWriter(raw), write_through=True)

    return make


def test_output_outlives_its_reader(lasting):
    reader, writer = os.pipe()
    stream = lasting(writer)
    print("heard", file=stream, flush=True)
    assert os.read(reader, 100) == b"heard\n"
    os.close(reader)
    for _ in range(3):
        print("x" * 10**5, file=stream, flush=True)
    assert os.path.samestat(os.fstat(writer), os.stat(os.devnull))  # for C++, too
    stream.close()


def test_a_full_disk_under_the_output_loses_lines_alone(lasting):
    with lasting(os.open("/dev/full", os.O_WRONLY)) as stream:
        print("x" * 10**5, file=stream, flush=True)


def test_a_slow_reader_is_waited_for(lasting):
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    command = [sys.executable, "-c", "import sys, time; time.sleep(0.3); sys.stdin.read()"]
    with lasting(writer) as stream, subprocess.Popen(command, stdin=reader) as process:
        os.close(reader)
        text = "x" * 10**6  # more than a pipe's buffer
        assert stream.write(text) == len(text)
        stream.close()
        assert process.wait() == 0


def test_closed_streams_lead_nowhere_and_their_numbers_stay_free_of_files(tmp_path):
    program = (
        "import sys; from ssljax import log; log.outlive_readers(); print('x'); "
        "print('y', file=sys.stderr, flush=True); "
        f"print(open({str(tmp_path / 'first')!r}, 'w').fileno(), file=open(sys.argv[1], 'w'))"
    )
    script = 'exec "$0" -c "$1" "$2" <&- >&- 2>&-'
    command = ["sh", "-c", script, sys.executable, program, tmp_path / "second"]
    assert subprocess.run(command).returncode == 0
    assert int((tmp_path / "second").read_text()) > 2


@pytest.mark.parametrize(
    ("encoding", "expected"),
    [
        ("ascii", b"3x4 +- 1 -> ... \\xe9 \\u72ac \\udce9\n"),
        ("latin-1", b"3\xd74 \xb1 1 -> ... \xe9 \\u72ac \\udce9\n"),
        ("utf-8", "3×4 ± 1 → … é 犬 \\udce9\n".encode()),
    ],
)
def test_any_terminal_shows_any_line(encoding, expected, monkeypatch):
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding, write_through=True)
    monkeypatch.setattr("sys.stdout", stream)
    log.show_lines()
    print("3×4 ± 1 → … é 犬 \udce9")
    assert raw.getvalue() == expected
    log.LOG.info("×")
    assert raw.getvalue() != expected
