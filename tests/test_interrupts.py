import os
import signal
import threading
import time

import pytest

from helpers.command import command
from ssljax import cli, interrupts


@pytest.fixture
def hangup():
    """Restores the process's SIGHUP handler."""
    before = signal.getsignal(signal.SIGHUP)
    yield
    signal.signal(signal.SIGHUP, before)


def test_under_nohup_a_hangup_ends_nothing(hangup):
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    assert interrupts.heeded() == (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    came = []
    with interrupts.handled(lambda signum, frame: came.append(signum)):
        os.kill(os.getpid(), signal.SIGHUP)
        os.kill(os.getpid(), signal.SIGTERM)
    assert came == [signal.SIGTERM]
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


def test_another_thread_leaves_signals_alone():
    def work():
        with interrupts.handled(interrupts.end):
            found.append(signal.getsignal(signal.SIGTERM))

    found = []
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [signal.SIG_DFL]


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_a_command_that_tidies_up(signum, capsys, monkeypatch, tmp_path):
    def work(parsed):
        try:
            os.kill(os.getpid(), signum)
            time.sleep(10)
        finally:
            if signum == signal.SIGHUP:  # a closing terminal sends two
                os.kill(os.getpid(), signum)
            (tmp_path / "tidied").touch()

    monkeypatch.setitem(cli._RUN, "recipes", work)
    code, _, errors = command(capsys, "--mode=recipes")
    assert code == 128 + signum
    assert errors == f"{signum.name}: there was nothing to save\n"
    assert (tmp_path / "tidied").exists()
    assert signal.getsignal(signum) is signal.SIG_DFL
