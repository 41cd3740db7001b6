"""Several processes, on one host or on many: how they communicate and monitor each other.

`join.py` has the code by which they find each other.
"""

import atexit
import itertools
import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import jax
import numpy as np
from jax._src import distributed  # not public, but in jax>=0.10
from jax.experimental import multihost_utils

from ssljax.errors import Interrupted, RunError, UsageError
from ssljax.log import LOG

PyTree = Any
# Seconds between two signs of life of a process and its checks of others; seconds without a sign
# after which a process counts as dead.
_PERIOD, _SILENCE = 1.0, 30.0
_PATIENCE = 10.0  # seconds of waiting for others after which a message says so
_DAY = 86_400_000  # milliseconds: others wait for the first process until it answers or dies


@contextmanager
def telling(text: Callable[[], str]) -> Iterator[None]:
    """Prints a line if waiting takes longer than 10 seconds; Ctrl-C ends the process at once.

    JAX waits in C++ code, where Python cannot handle a signal.
    """
    is_main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGINT, signal.SIG_DFL) if is_main else None
    try:
        with _timer(_PATIENCE, lambda: LOG.info("note: %s", text())):
            yield
    finally:
        if is_main:
            signal.signal(signal.SIGINT, before)


@contextmanager
def ending_after(seconds: float, reason: str) -> Iterator[None]:
    """Ends this process with a message after some seconds, earlier than JAX would abort it."""

    def end() -> None:
        try:
            print(f"error: {reason}", file=sys.stderr, flush=True)
        finally:
            os._exit(1)

    with _timer(seconds, end):
        yield


@contextmanager
def _timer(seconds: float, call: Callable[[], None]) -> Iterator[None]:
    timer = threading.Timer(seconds, call)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def look_after_others() -> None:
    """Starts the thread that sends signs of life of this process, and monitors the others."""
    thread = threading.Thread(target=_look_after_others, daemon=True)
    thread.start()
    # This runs before JAX's shutdown, which waits for the others: no thread may use its client
    # after that.
    atexit.register(thread.join)
    atexit.register(_over.set)


def _look_after_others() -> None:
    """Ends this process when another one has failed, or has sent no sign of life for too long.

    Collective operations would wait for it, some of them for ever.
    """
    client, me = _client(), f"ssljax/alive/{distributed.global_state.process_id}"
    seen: dict[str, tuple[str, float]] = {}  # process -> its last sign of life and the time of it
    beats = itertools.count()
    try:
        while not _over.wait(_PERIOD):
            client.key_value_set(me, str(next(beats)), allow_overwrite=True)
            for key, message in client.key_value_dir_get("ssljax/failed/"):
                if not _over.is_set():
                    _end(f"process {key.rsplit('/', 1)[1]} of the run has ended: {message}")
            for key, sign in client.key_value_dir_get("ssljax/alive/"):
                if key not in seen or seen[key][0] != sign:
                    seen[key] = sign, time.monotonic()
                elif time.monotonic() - seen[key][1] > _SILENCE:
                    process = key.rsplit("/", 1)[1]
                    _end(f"process {process} of the run has died, or its machine hangs")
        client.key_value_delete(me)  # or others would report this process as dead
    except jax.errors.JaxRuntimeError:
        return  # the first process has ended, which JAX reports


_AGAIN = "The newest checkpoint is intact: start all processes again to continue"


def _end(reason: str) -> None:
    try:
        print(f"error: {reason}. {_AGAIN}", file=sys.stderr, flush=True)
        if distributed.global_state.process_id == 0:
            time.sleep(4 * _PERIOD)  # process 0 has the store; if it ends first, JAX aborts others
    finally:  # even if stderr is closed
        os._exit(1)


@contextmanager
def abort_together() -> Iterator[None]:
    """With several processes, ends this one and notifies the others when it fails.

    JAX would wait for them at the exit, and they for this one in a collective operation.
    """
    try:
        yield
    except Interrupted:
        raise
    except Exception as error:
        if distributed.global_state.client is None or is_single_process():
            raise
        if isinstance(error, jax.errors.JaxRuntimeError):  # a collective operation has failed
            reason = " ".join(str(error).split())[:200]
            error = RunError(f"another process of the run has ended ({reason}). {_AGAIN}")
        if isinstance(error, UsageError | RunError):
            print(f"error: {error}", file=sys.stderr, flush=True)
        else:
            traceback.print_exc()
        _over.set()
        with suppress(jax.errors.JaxRuntimeError):
            _client().key_value_set(f"ssljax/failed/{jax.process_index()}", str(error))
        time.sleep(3 * _PERIOD)  # the others must read it before the first process ends
        os._exit(2 if isinstance(error, UsageError) else 1)


def is_first() -> bool:
    """Whether this is the process that prints and writes."""
    return jax.process_index() == 0


def is_single_process() -> bool:
    """Whether this is the only process of the run."""
    return jax.process_count() == 1


_asked = itertools.count()
_over = threading.Event()  # set when this process ends, or has reported its failure


def _client() -> Any:
    """JAX's key-value store, which all processes share."""
    return distributed.global_state.client


def barrier() -> None:
    """Waits until all processes arrive, then connects their devices.

    Gloo, which connects CPUs, fails if one process enters the first collective operation 30 seconds
    after another; later operations may wait longer.
    """
    if is_single_process():
        return
    client, key = _client(), f"ssljax/barrier/{next(_asked)}"
    client.key_value_set(f"{key}/{jax.process_index()}", "here")

    def waiting() -> str:
        here = {int(name.rpartition("/")[2]) for name, _ in client.key_value_dir_get(f"{key}/")}
        missing = [str(i) for i in range(jax.process_count()) if i not in here]
        return f"process {jax.process_index()} waits for {', '.join(missing)} to be ready"

    with telling(waiting):
        client.wait_at_barrier(f"{key}/all", _DAY)
    multihost_utils.sync_global_devices("ssljax")


def require_same(description: Mapping[str, Any]) -> None:
    """Requires that all processes have the same description of the run, in JSON's types.

    Raises:
      UsageError: this process differs from the first one; the message has the first difference.
    """
    if is_single_process():
        return
    mine = json.loads(json.dumps(description))
    first = broadcast_from_first(lambda: mine)
    for field in sorted(first.keys() | mine.keys()):
        if first.get(field) != mine.get(field):
            raise UsageError(
                f"process {jax.process_index()} of the run has {field}={mine.get(field)!r}, "
                f"process 0 {first.get(field)!r}; allowed: the same command for all, except "
                "config.distributed.process_id. Separate runs, such as the points of a sweep, "
                "need config.distributed.auto=false"
            )


def broadcast_from_first(function: Callable[[], Any]) -> Any:
    """Runs `function` in the first process, and broadcasts its result or error to all.

    Every process must call this at the same point of the run. Results are a few kilobytes in JSON's
    types, because a pickle from another machine could run code.
    """
    if is_single_process():
        return function()
    client, key = _client(), f"ssljax/first/{next(_asked)}"
    if not is_first():
        return _received(client.blocking_key_value_get_bytes(key, _DAY))
    try:
        value = function()
    except Exception as error:
        known = type(error).__name__ in _ERRORS
        told = str(error) if known else f"process 0: {type(error).__name__}: {error}"
        kind = type(error).__name__ if known else RunError.__name__
        client.key_value_set_bytes(key, json.dumps({"error": kind, "message": told}).encode())
        raise
    client.key_value_set_bytes(key, json.dumps({"value": value}).encode())
    return value


_ERRORS = {"UsageError": UsageError, "RunError": RunError}


def _received(message: bytes) -> Any:
    """The value that the first process has sent; raises its error if it has sent one."""
    try:
        sent = json.loads(message)
        if "error" not in sent:
            return sent["value"]
        error = _ERRORS[sent["error"]](str(sent["message"]))
    except (ValueError, KeyError, TypeError) as damage:
        raise RunError("process 0 of the run has sent something other than a value") from damage
    raise error


def broadcast_tree(read: Callable[[], PyTree | None], template: PyTree) -> PyTree | None:
    """Like `broadcast_from_first`, for None or a tree of host arrays shaped like `template`."""
    found = []

    def first() -> bool:
        found.append(read())
        return found[0] is not None

    if not broadcast_from_first(first):
        return None
    if is_single_process():
        return found[0]
    empty = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), template)
    tree = multihost_utils.broadcast_one_to_all(found[0] if found else empty)
    return jax.tree.map(np.asarray, tree)


def gather(tree: PyTree) -> PyTree:
    """Gathers host arrays of the same shapes from all processes, with a leading axis of processes.

    Every process gets the result.
    """
    if is_single_process():
        return jax.tree.map(lambda x: x[None], tree)
    return jax.tree.map(np.asarray, multihost_utils.process_allgather(tree))


class Agreement:
    """A number that any process can announce, and that all receive at the same point of the run.

    All processes must call this equally often, between compiled functions that all of them run
    together.
    """

    # With two steps of a stream in flight, another process may have this many more calls.
    _AHEAD = 4

    def __init__(self) -> None:
        self._key = f"ssljax/agreed/{next(_asked)}"
        self._count = 0

    def __call__(self, number: int) -> int:
        """The announced number, 0: none; `number` is what this process announces, 0: nothing."""
        if is_single_process():
            return number
        client = _client()
        self._count += 1
        if number:
            with suppress(jax.errors.JaxRuntimeError):  # a number has already been announced
                client.key_value_set(self._key, f"{self._count + self._AHEAD} {number}")
        try:
            when, announced = client.key_value_try_get(self._key).split()
        except jax.errors.JaxRuntimeError:
            return 0  # nothing was announced
        return int(announced) if self._count >= int(when) else 0
