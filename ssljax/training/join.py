"""Connects the processes of a run; `hosts.py` has their communication."""

import warnings
from typing import Any

import jax
from jax._src import clusters, distributed  # not public, but in jax>=0.10

from ssljax.errors import RunError, UsageError
from ssljax.training import hosts

# Seconds after which JAX takes a silent process for dead, and after which it stops waiting for
# others. JAX then aborts with a stack trace, so `hosts.py` and this file have shorter limits.
_SILENCE, _WAITING = 45, 360
_PATIENCE = 300.0  # seconds in which the others must arrive


def start(coordinator: str, num_processes: int, process_id: int, auto: bool = True) -> None:
    """Joins the processes of a run, before JAX's backend starts; a second call does nothing.

    Args:
      coordinator: `host:port` of process 0; "": the address from a TPU pod, SLURM or Open MPI, or
        else this process is alone.
      num_processes: number of processes of the run; 0: as for `coordinator` "".
      process_id: number of this process, from 0.
      auto: whether TPU pods, SLURM and Open MPI are detected.

    Raises:
      UsageError: the arguments do not fit together.
      RunError: the others do not arrive.
    """
    if distributed.global_state.client is not None:
        return
    given: dict[str, Any] = {}
    if coordinator or num_processes or process_id:
        _check(coordinator, num_processes, process_id)
        given = {
            "coordinator_address": coordinator,
            "num_processes": num_processes,
            "process_id": process_id,
            "coordinator_bind_address": _bind_address(coordinator),
            "cluster_detection_method": None if auto else "deactivate",
        }
        where = coordinator
    elif auto and (cluster := _cluster()):
        num_processes, process_id, where = *cluster[1:], cluster[0]
    else:
        return
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    others = f"the {num_processes - 1} others" if process_id == 0 else "process 0 and the others"
    waiting = f"process {process_id} of {num_processes} waits for {others} ({where})"
    alone = "" if coordinator else "; config.distributed.auto=false trains without them"
    given |= {"heartbeat_timeout_seconds": _SILENCE, "initialization_timeout": _WAITING}
    late = (
        f"the processes of the run did not find each other in {_PATIENCE:.0f} s: {waiting}{alone}"
    )
    try:
        with hosts.telling(lambda: waiting + alone), hosts.ending_after(_PATIENCE, late):
            jax.distributed.initialize(**given)
    except (RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:300]
        raise RunError(
            f"the processes of the run did not find each other{alone}: {reason}"
        ) from error
    hosts.look_after_others()


def are_several(coordinator: str, num_processes: int, process_id: int, auto: bool = True) -> bool:
    """Whether `start` with these arguments would join this process with others."""
    del num_processes, process_id
    return bool(coordinator) or (auto and _cluster() is not None)


def _cluster() -> tuple[str, int, int] | None:
    """The launcher of several processes (TPU pods, SLURM, Open MPI), their number and this one's.

    Raises:
      RunError: the launcher cannot be queried.
    """
    try:
        with warnings.catch_warnings(action="ignore"):  # about Kubernetes, which is not used here
            for kind in clusters.ClusterEnv._cluster_types:
                there = not kind.opt_in_only_method and kind.is_env_present()
                if there and (count := kind.get_process_count()) > 1:
                    return kind.name, count, kind.get_process_id()
    except Exception as error:  # each launcher has a different service
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise RunError(
            f"cannot find out whether this process is one of several ({reason}); "
            "config.distributed.auto=false trains alone"
        ) from error
    return None


def _check(coordinator: str, num_processes: int, process_id: int) -> None:
    port = coordinator.rpartition(":")[2]
    is_address = ":" in coordinator and port.isdecimal() and 0 < int(port) < 65536
    if not is_address or not 0 <= process_id < num_processes:
        raise UsageError(
            f"config.distributed is coordinator={coordinator!r} num_processes={num_processes} "
            f"process_id={process_id}; allowed: host:port, from 1 up, and from 0 to "
            "num_processes - 1"
        )


def _bind_address(coordinator: str) -> str | None:
    """The address at which the coordinator listens; None: JAX's default, all of its machine.

    If all processes are on this machine, other machines must not reach it.
    """
    host, _, port = coordinator.rpartition(":")
    if host == "localhost":
        host = "127.0.0.1"
    is_local = host.startswith("127.") or host == "[::1]"
    return f"{host}:{port}" if is_local else None
