"""Tests communication between processes, and how they find each other; `faults/test_hosts.py` uses
real ones."""

import json
import pickle
import signal
import time
import types

import pytest

from ssljax.errors import RunError, UsageError
from ssljax.training import hosts, join


class Store:
    """JAX's key-value store, as filled by another process."""

    def __init__(self, message=b""):
        self.message, self.sent = message, []

    def blocking_key_value_get_bytes(self, key, timeout):
        return self.message

    def key_value_set_bytes(self, key, message):
        self.sent.append(message)


@pytest.fixture
def second(monkeypatch):
    """Makes this the second of two processes; returns a setter of what the first one sends."""
    monkeypatch.setattr(hosts.jax, "process_count", lambda: 2)
    monkeypatch.setattr(hosts.jax, "process_index", lambda: 1)

    def sends(message):
        store = Store(message if isinstance(message, bytes) else json.dumps(message).encode())
        monkeypatch.setattr(hosts, "_client", lambda: store)

    return sends


class Evil:
    def __reduce__(self):
        return pytest.fail, ("a pickle was read",)


@pytest.mark.parametrize(
    "message",
    [pickle.dumps((Evil(), None)), b"\xff", b"[]", b"{}", b"1", b'{"error": "SystemExit"}'],
)
def test_what_is_no_data_is_refused(message, second):
    second(message)
    with pytest.raises(RunError, match="has sent something other than a value"):
        hosts.broadcast_from_first(lambda: pytest.fail("this is not the first process"))


def test_values_and_errors_are_those_of_the_first_process(second, monkeypatch):
    second({"value": {"accuracy": 0.25}})
    assert hosts.broadcast_from_first(dict) == {"accuracy": 0.25}
    second({"error": "UsageError", "message": "config.seed is -1"})
    with pytest.raises(UsageError, match="config.seed is -1"):
        hosts.broadcast_from_first(dict)

    def fails(error):
        raise error

    monkeypatch.setattr(hosts.jax, "process_index", lambda: 0)
    for error, told in (
        (RunError("full"), {"error": "RunError", "message": "full"}),
        (OSError("no"), {"error": "RunError", "message": "process 0: OSError: no"}),
    ):
        with pytest.raises(type(error)):
            hosts.broadcast_from_first(lambda error=error: fails(error))
        assert json.loads(hosts._client().sent[-1]) == told


def test_a_process_with_another_recipe_is_told_which_knob(second):
    second({"value": {"config.seed": 0, "workdir": "a"}})
    hosts.require_same({"config.seed": 0, "workdir": "a"})
    with pytest.raises(UsageError, match=r"process 1 of the run has config.seed=1, process 0 0;"):
        hosts.require_same({"config.seed": 1, "workdir": "b"})
    with pytest.raises(UsageError, match="has workdir='b', process 0 'a'; allowed: the same"):
        hosts.require_same({"config.seed": 0, "workdir": "b"})


@pytest.mark.parametrize(
    ("coordinator", "bound"),
    [
        ("127.0.0.1:1234", "127.0.0.1:1234"),
        ("localhost:1234", "127.0.0.1:1234"),
        ("[::1]:1234", "[::1]:1234"),
        ("host0:1234", None),
        ("10.0.0.1:1234", None),
    ],
)
def test_the_coordinator_of_a_local_run_listens_on_this_machine_only(
    coordinator, bound, monkeypatch
):
    given = {}
    monkeypatch.setattr(join.jax.distributed, "initialize", lambda **kwargs: given.update(kwargs))
    monkeypatch.setattr(hosts, "look_after_others", lambda: None)
    join.start(coordinator, 2, 0)
    assert given["coordinator_bind_address"] == bound


SLURM = {
    "SLURM_JOB_ID": "77", "SLURM_STEP_NODELIST": "localhost", "SLURM_NTASKS": "4",
    "SLURM_PROCID": "1", "SLURM_LOCALID": "1", "SLURM_STEP_NUM_NODES": "1",
}  # fmt: skip


def test_who_waits_says_so_and_how_not_to(monkeypatch, capsys):
    for name, value in SLURM.items():
        monkeypatch.setenv(name, value)
    assert join.are_several("", 0, 0)
    assert not join.are_several("", 0, 0, auto=False)
    monkeypatch.setattr(hosts, "_PATIENCE", 0.01)

    def alone(**options):
        time.sleep(0.2)
        raise RuntimeError("DEADLINE_EXCEEDED")

    monkeypatch.setattr(join.jax.distributed, "initialize", alone)
    join.start("", 0, 0, auto=False)  # fails immediately
    with pytest.raises(RunError, match="did not find each other; config.distributed.auto=false"):
        join.start("", 0, 0)
    assert capsys.readouterr().out == (
        "note: process 1 of 4 waits for process 0 and the others (slurm); "
        "config.distributed.auto=false trains without them\n"
    )


def test_a_wait_ends_with_a_line_and_ctrl_c_ends_it_at_once(monkeypatch, capsys):
    codes, before = [], signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(hosts.os, "_exit", codes.append)
    with hosts.telling(str), hosts.ending_after(0.01, "nobody came"):
        assert signal.getsignal(signal.SIGINT) == signal.SIG_DFL
        time.sleep(0.2)
    assert codes == [1]
    assert capsys.readouterr().err == "error: nobody came\n"
    assert signal.getsignal(signal.SIGINT) == before
    with hosts.ending_after(0.1, "nobody came"):
        pass
    time.sleep(0.2)
    assert codes == [1]


def test_what_cannot_be_asked_is_named_in_one_line(monkeypatch):
    def fails():
        raise RuntimeError("the pod has\nno controller")

    pods = types.SimpleNamespace(opt_in_only_method=False, is_env_present=fails)
    monkeypatch.setattr(join.clusters.ClusterEnv, "_cluster_types", [pods])
    with pytest.raises(RunError, match=r"the pod has no controller\); config.distributed.auto=fa"):
        join.start("", 0, 0)
